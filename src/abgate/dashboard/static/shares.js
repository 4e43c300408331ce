// Sliders whose values always sum to 100: what one takes, the others give, in proportion to what they have.

const TOTAL = 100;

export function bindShares(root) {
  for (const group of root.querySelectorAll("[data-shares]")) {
    if (group.dataset.bound) continue;
    group.dataset.bound = "1";
    group.addEventListener("input", (event) => {
      if (event.target.type !== "range") return;
      spread([...group.querySelectorAll("input[type=range]")], event.target);
      show(group);
    });
    show(group);
  }
}

function spread(sliders, moved) {
  const others = sliders.filter((each) => each !== moved);
  if (others.length === 0) {
    moved.value = TOTAL;
    return;
  }
  const rest = TOTAL - Number(moved.value);
  const before = others.map((each) => Number(each.value));
  const sum = before.reduce((total, each) => total + each, 0);
  const wanted = before.map((each) => (sum ? (each / sum) * rest : rest / others.length));
  const given = wanted.map(Math.floor);
  // What rounding left over goes to those who lost most by it.
  const order = wanted.map((each, index) => [each - given[index], index]).sort((a, b) => b[0] - a[0]);
  const left = rest - given.reduce((total, each) => total + each, 0);
  for (let index = 0; index < left; index += 1) given[order[index][1]] += 1;
  others.forEach((each, index) => (each.value = given[index]));
}

function show(group) {
  for (const slider of group.querySelectorAll("input[type=range]")) {
    const output = group.querySelector(`output[for="${slider.id}"]`);
    if (output) output.textContent = `${slider.value} %`;
  }
}
