package auth

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
)

// needsCert says whether the rule asks for a certificate of the client's, and
// whether that has to name the role.
func (r *Rule) needsCert() (needed, named bool) {
	switch mode := r.option("clientcert"); {
	case r.Method == "cert" || mode == "verify-full":
		return true, true
	default:
		return mode == "verify-ca", false
	}
}

// checkHasCert refuses a client without the certificate that the rule asks for.
// That one which is there is good was found out in the handshake.
func checkHasCert(r *Rule, cfg *tls.Config, state *tls.ConnectionState) error {
	if needed, _ := r.needsCert(); !needed {
		return nil
	}
	if cfg == nil || cfg.ClientCAs == nil {
		return fatal(codeConfigFile, "client certificates can only be checked if a root certificate store is available")
	}
	if state == nil || len(state.VerifiedChains) == 0 {
		return fatal(codeInvalidAuthorization, "connection requires a valid client certificate")
	}
	return nil
}

// checkCertName holds the role to the name in the certificate; "" if it fits.
func (a *Authenticator) checkCertName(r *Rule, state *tls.ConnectionState, role string) string {
	cert := state.PeerCertificates[0]
	name := commonName(cert)
	if r.option("clientname") == "DN" {
		var dn pkix.RDNSequence // in the certificate's own order
		if _, err := asn1.Unmarshal(cert.RawSubject, &dn); err == nil {
			name = dn.String()
		}
	}
	if name == "" {
		return fmt.Sprintf("certificate authentication failed for user %q: client certificate contains no user name", role)
	}
	if strings.ContainsRune(name, 0) { // the beginning of which a pattern may take for the whole
		return fmt.Sprintf("certificate authentication failed for user %q: the name in the client certificate contains a null byte", role)
	}
	return a.checkUserMap(r, name, role)
}

// certRefusal is what a client whose certificate names another is told: as
// PostgreSQL, what the rule's method says when it fails.
func certRefusal(r *Rule, role string) *Rejection {
	switch r.Method {
	case "cert":
		return fatal(codeInvalidAuthorization, `certificate authentication failed for user "%s"`, role)
	case "trust":
		return fatal(codeInvalidAuthorization, `"trust" authentication failed for user "%s"`, role)
	}
	return fatal(codeInvalidPassword, `password authentication failed for user "%s"`, role)
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonName is the first one of the certificate, as in PostgreSQL; Go has the
// last.
func commonName(c *x509.Certificate) string {
	for _, n := range c.Subject.Names {
		if s, ok := n.Value.(string); ok && n.Type.Equal(oidCommonName) {
			return s
		}
	}
	return ""
}
