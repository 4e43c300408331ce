"""The authentication flows that clients send, in words."""

KNOWN_FLOWS = {
    "authentication": "Log in (the gateway's)",
    "signup": "Sign up",
    "login": "Log in, first-generation clients",
    "pre_authentication": "Before authentication",
    "mfa_enrollment": "MFA enrolment",
    "mfa_challenge": "MFA challenge",
    "password_reset": "Password reset",
    "passkey_enrollment": "Passkey enrolment",
    "all": "Every flow (tolerates no other experiment)",
}
