package org.abgate.keycloak;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.jboss.logging.Logger;
import org.keycloak.util.JsonSerialization;

/** abgate over HTTP. Nothing here throws: whatever goes wrong, the login goes on without an experiment. */
final class Abgate {
    /** A login waits for us no longer than this: for the connection, the headers and the body together. */
    private static final long TIMEOUT_MS = 200;

    /** Nobody waits for events, but a server that hangs must not collect them without end. */
    private static final Duration EVENT_TIMEOUT = Duration.ofSeconds(5);

    private static final Logger log = Logger.getLogger(Abgate.class);
    // Java would ask to upgrade plain http to HTTP/2, and abgate's server drops the body of such a request.
    private static final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    private final String url;
    private final String key;

    Abgate(String url, String key) {
        this.url = url;
        this.key = key;
    }

    /** By the environment variables ABGATE_URL and ABGATE_KEY of Keycloak's process. */
    static Abgate ofEnvironment() {
        return new Abgate(System.getenv("ABGATE_URL"), System.getenv("ABGATE_KEY"));
    }

    /** Returns the ExperimentContext as JSON, or null. */
    String resolve(Map<String, Object> question) {
        CompletableFuture<HttpResponse<String>> answering = null;
        try {
            answering = client.sendAsync(post("/runtime/v1/resolve", question).build(), BodyHandlers.ofString());
            // The request's own timeout ends with the headers; this one covers the body too.
            HttpResponse<String> answer = answering.get(TIMEOUT_MS, TimeUnit.MILLISECONDS);
            if (answer.statusCode() != 200) {
                throw new IOException("abgate answered " + answer.statusCode());
            }
            Object experiment = JsonSerialization.readValue(answer.body(), Map.class).get("experiment");
            return experiment == null ? null : JsonSerialization.writeValueAsString(experiment);
        } catch (Exception error) {
            if (answering != null) {
                answering.cancel(true);
            }
            if (error instanceof InterruptedException) {
                Thread.currentThread().interrupt();
            }
            log.warnf("abgate: no experiment for this login: %s", error);
            return null;
        }
    }

    /** Sends an event and does not wait for the answer. */
    void send(Map<String, Object> event) {
        try {
            client.sendAsync(post("/runtime/v1/events", event).timeout(EVENT_TIMEOUT).build(), BodyHandlers.discarding())
                    .whenComplete((answer, error) -> {
                        if (error != null || answer.statusCode() != 202) {
                            log.warnf("abgate: an event is lost: %s", error != null ? error : answer.statusCode());
                        }
                    });
        } catch (Exception error) {
            log.warnf("abgate: an event is lost: %s", error);
        }
    }

    private HttpRequest.Builder post(String path, Map<String, Object> body) throws IOException {
        if (url == null || key == null) {
            throw new IOException("ABGATE_URL or ABGATE_KEY is not set");
        }
        return HttpRequest.newBuilder(URI.create(url + path))
                .header("Content-Type", "application/json")
                .header("Authorization", "Bearer " + key)
                .POST(BodyPublishers.ofString(JsonSerialization.writeValueAsString(body)));
    }
}
