package auth

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// TLSParameters are the parameters of PostgreSQL's that LoadTLS obeys.
var TLSParameters = []string{"ssl", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir",
	"ssl_ciphers", "ssl_ecdh_curve", "ssl_min_protocol_version", "ssl_max_protocol_version"}

// LoadTLS makes of PostgreSQL's parameters, as pg_settings has them, what to
// encrypt connections with; nil with ssl off. Relative paths are from dir. What
// is wrong with the files is said in PostgreSQL's words.
//
// ssl_ciphers counts where it names ciphers one by one; where it uses words such
// as HIGH, the choice is Go's. The order of preference is Go's always, and
// there is no key exchange by finite fields (ssl_dh_params_file).
func LoadTLS(dir string, param map[string]string) (*tls.Config, error) {
	if param["ssl"] != "on" {
		return nil, nil
	}
	file := func(name string) string {
		path := param[name]
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	cert, err := loadCertificate(file("ssl_cert_file"), file("ssl_key_file"))
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{cert},
		// As PostgreSQL: what a client may do is decided anew each time.
		SessionTicketsDisabled: true,
	}
	if err := setVersions(cfg, param["ssl_min_protocol_version"], param["ssl_max_protocol_version"]); err != nil {
		return nil, err
	}
	if cfg.CipherSuites, err = cipherSuites(param["ssl_ciphers"]); err != nil {
		return nil, err
	}
	if cfg.CurvePreferences, err = curves(param["ssl_ecdh_curve"]); err != nil {
		return nil, err
	}
	ca := file("ssl_ca_file")
	if ca == "" {
		return cfg, nil
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("could not load root certificate file %q: %w", ca, bare(err))
	}
	cfg.ClientCAs = x509.NewCertPool()
	if !cfg.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("could not load root certificate file %q: no certificate found", ca)
	}
	cfg.ClientAuth = tls.VerifyClientCertIfGiven
	lists, err := loadRevoked(file("ssl_crl_file"), file("ssl_crl_dir"))
	if err != nil {
		return nil, err
	}
	if lists != nil {
		cfg.VerifyPeerCertificate = func(_ [][]byte, chains [][]*x509.Certificate) error { return lists.check(chains) }
	}
	return cfg, nil
}

// bare is err without the path, which the message has already.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func loadCertificate(certFile, keyFile string) (tls.Certificate, error) {
	certText, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("could not load server certificate file %q: %w", certFile, bare(err))
	}
	if err := checkKeyFile(keyFile); err != nil {
		return tls.Certificate{}, err
	}
	keyText, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("could not load private key file %q: %w", keyFile, bare(err))
	}
	for rest := keyText; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
			return tls.Certificate{}, fmt.Errorf("could not load private key file %q: keys with a passphrase are not supported", keyFile)
		}
	}
	cert, err := tls.X509KeyPair(certText, keyText)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("could not load server certificate file %q and private key file %q: %w", certFile, keyFile, err)
	}
	return cert, nil
}

// checkKeyFile holds a private key to be private, as PostgreSQL does.
func checkKeyFile(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("could not access private key file %q: %w", path, bare(err))
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("private key file %q is not a regular file", path)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	own := int(st.Uid) == os.Geteuid()
	if !own && st.Uid != 0 {
		return fmt.Errorf("private key file %q must be owned by the database user or root", path)
	}
	if own && fi.Mode()&0o077 != 0 || st.Uid == 0 && fi.Mode()&0o037 != 0 {
		return fmt.Errorf("private key file %q has group or world access: it must have permissions u=rw (0600) or less "+
			"if owned by the database user, or permissions u=rw,g=r (0640) or less if owned by root", path)
	}
	return nil
}

func setVersions(cfg *tls.Config, least, most string) error {
	versions := map[string]uint16{"TLSv1": tls.VersionTLS10, "TLSv1.1": tls.VersionTLS11, "TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}
	for _, v := range []struct {
		name, value string
		to          *uint16
	}{{"ssl_min_protocol_version", least, &cfg.MinVersion}, {"ssl_max_protocol_version", most, &cfg.MaxVersion}} {
		n, ok := versions[v.value]
		if !ok && v.value != "" {
			return fmt.Errorf("%q setting %q not supported", v.name, v.value)
		}
		*v.to = n
	}
	if cfg.MaxVersion != 0 && cfg.MinVersion > cfg.MaxVersion {
		return errors.New(`could not set SSL protocol version range: "ssl_min_protocol_version" cannot be higher than "ssl_max_protocol_version"`)
	}
	return nil
}

// ciphers of TLS up to 1.2, by OpenSSL's names.
var ciphers = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA256":     tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-AES128-SHA256":       tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	"AES128-GCM-SHA256":             tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	"AES256-GCM-SHA384":             tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	"AES128-SHA256":                 tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
	"AES128-SHA":                    tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	"AES256-SHA":                    tls.TLS_RSA_WITH_AES_256_CBC_SHA,
}

// cipherSuites reads ssl_ciphers. nil leaves the choice to Go: where the list
// uses words for many ciphers, such as HIGH.
func cipherSuites(list string) ([]uint16, error) {
	var suites []uint16
	for _, w := range strings.FieldsFunc(list, func(r rune) bool { return r == ':' || r == ',' || r == ' ' || r == ';' }) {
		id, known := ciphers[w]
		switch {
		case known:
			suites = append(suites, id)
		case strings.ContainsAny(w[:1], "!-+@"): // takes away or sorts
		case !strings.Contains(w, "-"):
			return nil, nil
		}
	}
	if suites == nil && list != "" {
		return nil, fmt.Errorf("could not set the cipher list: none of %q is supported", list)
	}
	return suites, nil
}

// curves reads ssl_ecdh_curve. PostgreSQL's default leaves the choice to Go,
// among whose curves it is.
func curves(name string) ([]tls.CurveID, error) {
	switch strings.ToLower(name) {
	case "", "prime256v1", "p-256":
		return nil, nil
	case "secp384r1", "p-384":
		return []tls.CurveID{tls.CurveP384}, nil
	case "secp521r1", "p-521":
		return []tls.CurveID{tls.CurveP521}, nil
	case "x25519":
		return []tls.CurveID{tls.X25519}, nil
	}
	return nil, fmt.Errorf("ECDH: unrecognized curve name: %s", name)
}

// revoked are lists of revoked certificates, by their issuers' raw names.
type revoked map[string][]*x509.RevocationList

// loadRevoked reads the lists of a file and of the files of a folder, each in
// PEM; nil when neither is given.
func loadRevoked(file, dir string) (revoked, error) {
	if file == "" && dir == "" {
		return nil, nil
	}
	var paths []string
	if file != "" {
		paths = append(paths, file)
	}
	if dir != "" {
		list, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("could not load SSL certificate revocation list directory %q: %w", dir, bare(err))
		}
		for _, e := range list {
			if fi, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && fi.Mode().IsRegular() {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	lists := revoked{}
	for _, path := range paths {
		failed := func(err error) error {
			return fmt.Errorf("could not load SSL certificate revocation list file %q: %w", path, err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, failed(bare(err))
		}
		found := false
		for {
			var b *pem.Block
			if b, text = pem.Decode(text); b == nil {
				break
			}
			if b.Type != "X509 CRL" {
				continue
			}
			l, err := x509.ParseRevocationList(b.Bytes)
			if err != nil {
				return nil, failed(err)
			}
			found = true
			lists[string(l.RawIssuer)] = append(lists[string(l.RawIssuer)], l)
		}
		if !found && path == file {
			return nil, failed(errors.New("no revocation list found"))
		}
	}
	return lists, nil
}

// check refuses a client whose certificate, or one above it, is revoked or has
// no list in force of its issuer's to say that it is not. Without a certificate
// there are no chains.
func (r revoked) check(chains [][]*x509.Certificate) error {
	var err error
	for _, chain := range chains {
		if err = r.checkChain(chain, time.Now()); err == nil {
			return nil
		}
	}
	return err
}

func (r revoked) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain {
		l, err := r.newest(c, chain[min(i+1, len(chain)-1)], now) // the last is its own issuer
		if err != nil {
			return err
		}
		for _, e := range l.RevokedCertificateEntries {
			if e.SerialNumber.Cmp(c.SerialNumber) == 0 {
				return fmt.Errorf("certificate revoked: %q", c.Subject)
			}
		}
	}
	return nil
}

// newest is the last list in force that the issuer of c has signed: file and
// folder may have older ones beside it.
func (r revoked) newest(c, issuer *x509.Certificate, now time.Time) (newest *x509.RevocationList, err error) {
	err = fmt.Errorf("unable to get certificate CRL for %q", c.Subject)
	for _, l := range r[string(c.RawIssuer)] {
		switch {
		case l.CheckSignatureFrom(issuer) != nil:
		case now.Before(l.ThisUpdate):
			err = fmt.Errorf("CRL is not yet valid for %q", c.Subject)
		case !l.NextUpdate.IsZero() && now.After(l.NextUpdate):
			err = fmt.Errorf("CRL has expired for %q", c.Subject)
		case newest == nil || l.ThisUpdate.After(newest.ThisUpdate):
			newest = l
		}
	}
	if newest != nil {
		return newest, nil
	}
	return nil, err
}
