package org.abgate.keycloak;

import org.keycloak.authentication.Authenticator;
import org.keycloak.authentication.authenticators.browser.UsernamePasswordFormFactory;
import org.keycloak.models.KeycloakSession;

/** Offers the form in the admin console, for the place of "Username Password Form" in a copy of the browser flow. */
public final class ExperimentFormFactory extends UsernamePasswordFormFactory {
    private final Abgate abgate = Abgate.ofEnvironment();

    @Override
    public Authenticator create(KeycloakSession session) {
        return new ExperimentForm(session, abgate);
    }

    @Override
    public String getId() {
        return "abgate-username-password-form";
    }

    @Override
    public String getDisplayType() {
        return "Username Password Form with abgate";
    }

    @Override
    public String getHelpText() {
        return "Username Password Form whose page may be part of an experiment.";
    }
}
