// Bucketing, version 1, for Node.js. The specification is docs/bucketing.md; bucketing.json holds its answers.
"use strict";
const { createHash } = require("node:crypto");

const bucket = (digest, offset) => Number((digest.readBigUInt64BE(offset) * 10000n) >> 64n);

function positionAndEntry(salt, subject) {
  const digest = createHash("sha256").update(`${salt}:${subject}`, "utf8").digest();
  return [bucket(digest, 0), bucket(digest, 8)];
}

const isEnrolled = (entry, level) => level === null || entry < level * 100;

function pick(position, weights) {
  let end = 0;
  const index = weights.findIndex((weight) => (end += weight * 100) > position);
  return index === -1 ? null : index;
}

module.exports = { positionAndEntry, isEnrolled, pick };
