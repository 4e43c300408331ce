package org.abgate.keycloak;

import jakarta.ws.rs.core.Cookie;
import jakarta.ws.rs.core.MultivaluedMap;
import jakarta.ws.rs.core.NewCookie;
import jakarta.ws.rs.core.Response;
import java.security.SecureRandom;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import org.jboss.logging.Logger;
import org.keycloak.authentication.AuthenticationFlowContext;
import org.keycloak.authentication.authenticators.browser.UsernamePasswordForm;
import org.keycloak.http.HttpRequest;
import org.keycloak.models.KeycloakSession;
import org.keycloak.sessions.AuthenticationSessionModel;
import org.keycloak.util.JsonSerialization;

/** Keycloak's username and password form, whose templates see the login's ExperimentContext as `experiment`. */
final class ExperimentForm extends UsernamePasswordForm {
    /** Keycloak keeps what it does not know of an authorization request under this prefix. */
    private static final String GATEWAY_TOKEN = "client_request_param_ext-experiment_token";

    /** Set by abgate's gateway when it is served under the same host name, else by us. */
    private static final String DEVICE_COOKIE = "__Host-abgate_device";
    private static final int DEVICE_BYTES = 16;
    private static final int COOKIE_SECONDS = 400 * 86400;

    private static final String NOTE = "abgate.experiment";
    private static final String NO_EXPERIMENT = "null";
    private static final Logger log = Logger.getLogger(ExperimentForm.class);
    private static final SecureRandom entropy = new SecureRandom();

    private final Abgate abgate;

    ExperimentForm(KeycloakSession session, Abgate abgate) {
        super(session);
        this.abgate = abgate;
    }

    @Override
    protected Response challenge(AuthenticationFlowContext context, MultivaluedMap<String, String> formData) {
        expose(context);
        return super.challenge(context, formData);
    }

    @Override
    protected Response challenge(AuthenticationFlowContext context, String error, String field) {
        expose(context);
        return super.challenge(context, error, field);
    }

    /** Asks only when the page is drawn, so that whoever never sees it is not counted as exposed. */
    private void expose(AuthenticationFlowContext context) {
        try {
            AuthenticationSessionModel login = context.getAuthenticationSession();
            String experiment = login.getAuthNote(NOTE);
            if (experiment == null) {
                String answer = abgate.resolve(question(context, login));
                experiment = answer == null ? NO_EXPERIMENT : answer;
                // Kept, so that the page looks the same again after a wrong password, whatever was changed meanwhile.
                login.setAuthNote(NOTE, experiment);
            }
            if (!experiment.equals(NO_EXPERIMENT)) {
                context.form().setAttribute("experiment", JsonSerialization.readValue(experiment, Map.class));
            }
        } catch (Exception error) {
            log.warnf("abgate: no experiment for this login: %s", error);
        }
    }

    private static Map<String, Object> question(AuthenticationFlowContext context, AuthenticationSessionModel login) {
        Map<String, Object> request = new HashMap<>();
        request.put("client_id", login.getClient().getClientId());
        request.put("domain", context.getUriInfo().getBaseUri().getHost());
        request.put("user_agent", context.getHttpRequest().getHttpHeaders().getHeaderString("User-Agent"));
        request.put("ip", context.getConnection().getRemoteAddr());
        Map<String, Object> question = new HashMap<>();
        question.put("flow", "authentication");
        question.put("subjects", Map.of("device", device(context)));
        // The `code_id` of the login's events: by it they find this exposure.
        question.put("transaction_id", login.getParentSession().getId());
        question.put("request", request);
        question.put("assignment_token", login.getClientNote(GATEWAY_TOKEN));
        return question;
    }

    private static String device(AuthenticationFlowContext context) {
        HttpRequest request = context.getHttpRequest();
        Cookie known = request.getHttpHeaders().getCookies().get(DEVICE_COOKIE);
        if (known != null) {
            return known.getValue();
        }
        byte[] random = new byte[DEVICE_BYTES];
        entropy.nextBytes(random);
        String device = Base64.getUrlEncoder().withoutPadding().encodeToString(random);
        context.getSession().getContext().getHttpResponse().setCookieIfAbsent(
                new NewCookie.Builder(DEVICE_COOKIE).value(device).path("/").maxAge(COOKIE_SECONDS).secure(true)
                        .httpOnly(true).sameSite(NewCookie.SameSite.LAX).build());
        return device;
    }
}
