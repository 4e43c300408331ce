package org.abgate.keycloak;

import java.time.Instant;
import java.util.HashMap;
import java.util.Map;
import org.keycloak.Config;
import org.keycloak.events.Details;
import org.keycloak.events.Errors;
import org.keycloak.events.Event;
import org.keycloak.events.EventListenerProvider;
import org.keycloak.events.EventListenerProviderFactory;
import org.keycloak.events.EventListenerTransaction;
import org.keycloak.events.admin.AdminEvent;
import org.keycloak.models.KeycloakSession;
import org.keycloak.models.KeycloakSessionFactory;

/** Sends logins and registrations to abgate as tenant-log events, once Keycloak has committed them. */
public final class EventSender implements EventListenerProviderFactory {
    private final Abgate abgate = Abgate.ofEnvironment();

    @Override
    public EventListenerProvider create(KeycloakSession session) {
        EventListenerTransaction committed = new EventListenerTransaction(null, this::send);
        session.getTransactionManager().enlistAfterCompletion(committed);
        return new EventListenerProvider() {
            @Override
            public void onEvent(Event event) {
                committed.addEvent(event);
            }

            @Override
            public void onEvent(AdminEvent event, boolean includeRepresentation) {}

            @Override
            public void close() {}
        };
    }

    private void send(Event event) {
        String type = type(event);
        if (type != null) {
            // Keycloak's id makes one of an event that comes twice.
            abgate.send(Map.of("log_id", "keycloak_" + event.getId(), "data", data(event, type)));
        }
    }

    static String type(Event event) {
        return switch (event.getType()) {
            case LOGIN -> "s";
            case REGISTER -> "ss";
            case REGISTER_ERROR -> "fs";
            case LOGIN_ERROR -> switch (String.valueOf(event.getError())) {
                case Errors.INVALID_USER_CREDENTIALS -> "fp";
                case Errors.USER_NOT_FOUND -> "fu";
                default -> "f";
            };
            default -> null;
        };
    }

    static Map<String, Object> data(Event event, String type) {
        Map<String, String> details = event.getDetails() == null ? Map.of() : event.getDetails();
        Map<String, Object> data = new HashMap<>();
        data.put("type", type);
        data.put("date", Instant.ofEpochMilli(event.getTime()).toString());
        data.put("client_id", event.getClientId());
        data.put("user_id", event.getUserId());
        data.put("ip", event.getIpAddress());
        data.put("hostname", event.getRealmName());
        data.put("transaction_id", details.get(Details.CODE_ID));
        data.put("description", event.getError());
        return data;
    }

    @Override
    public void init(Config.Scope config) {}

    @Override
    public void postInit(KeycloakSessionFactory factory) {}

    @Override
    public void close() {}

    @Override
    public String getId() {
        return "abgate";
    }
}
