package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

const (
	scramMechanism = "SCRAM-SHA-256"
	// scramPlus binds the proof to the server's certificate, so that nobody can
	// pass it on from a connection with another.
	scramPlus = scramMechanism + "-PLUS"
	// PostgreSQL's defaults for new verifiers, which mock ones resemble.
	scramIterations = 4096
	scramSaltLen    = 16
)

// parseVerifier reads SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>,
// all but the iterations in base64.
func parseVerifier(s string) (scram.StoredCredentials, error) {
	bad := errors.New("stored password is not a SCRAM-SHA-256 verifier")
	rest, ok := strings.CutPrefix(s, scramMechanism+"$")
	if !ok {
		return scram.StoredCredentials{}, bad
	}
	factors, keys, ok1 := strings.Cut(rest, "$")
	iters, salt, ok2 := strings.Cut(factors, ":")
	stored, server, ok3 := strings.Cut(keys, ":")
	if !ok1 || !ok2 || !ok3 {
		return scram.StoredCredentials{}, bad
	}
	n, err := strconv.ParseInt(iters, 10, 32)
	if err != nil || n < 1 {
		return scram.StoredCredentials{}, bad
	}
	rawSalt, err1 := base64.StdEncoding.DecodeString(salt)
	storedKey, err2 := base64.StdEncoding.DecodeString(stored)
	serverKey, err3 := base64.StdEncoding.DecodeString(server)
	if err1 != nil || err2 != nil || err3 != nil ||
		len(storedKey) != sha256.Size || len(serverKey) != sha256.Size {
		return scram.StoredCredentials{}, bad
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(rawSalt), Iters: int(n)},
		StoredKey:  storedKey,
		ServerKey:  serverKey,
	}, nil
}

// mockVerifier is what a role without a SCRAM password seems to have: always
// the same salt for the same name, and keys no password gives.
func mockVerifier(user string, nonce []byte) scram.StoredCredentials {
	salt := sha256.Sum256(append([]byte(user), nonce...))
	v := scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(salt[:scramSaltLen]), Iters: scramIterations},
		StoredKey:  make([]byte, sha256.Size),
		ServerKey:  make([]byte, sha256.Size),
	}
	rand.Read(v.StoredKey)
	rand.Read(v.ServerKey)
	return v
}

// scram has the client prove by SCRAM-SHA-256 that it knows the password,
// and returns the server's own proof, to be sent with AuthenticationOk.
// Whatever makes success impossible shows only at the end.
func (e *exchange) scram() (pgproto3.BackendMessage, error) {
	v, err := parseVerifier(e.secret)
	doomed := err != nil
	why := ""
	if doomed {
		v = mockVerifier(e.user, e.nonce)
		why = err.Error()
	}
	// The user name in the client's message does not count: libpq leaves it
	// empty, since the startup message has said it.
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return v, nil })
	if err != nil {
		return nil, fatal(codeSystemError, "could not set up SCRAM authentication").withLog("%v", err)
	}
	mechanisms := []string{scramMechanism}
	if e.binding.IsSupported() {
		mechanisms = []string{scramPlus, scramMechanism}
	}
	if err := send(e.conn, &pgproto3.AuthenticationSASL{AuthMechanisms: mechanisms}); err != nil {
		return nil, err
	}
	mechanism, first, err := e.saslInitial(mechanisms)
	if err != nil {
		return nil, err
	}
	if err := e.checkBinding(mechanism, string(first)); err != nil {
		return nil, err
	}
	conv := server.NewConversationWithChannelBinding(e.binding)
	challenge, err := conv.Step(string(first))
	if err != nil {
		return nil, malformed(err)
	}
	if conv.AuthzID() != "" {
		return nil, fatal(codeFeatureNotSupported, "client uses authorization identity, but it is not supported")
	}
	if err := send(e.conn, &pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)}); err != nil {
		return nil, err
	}
	final, err := readResponse(e.conn, maxSASL)
	if err != nil {
		return nil, err
	}
	proof, err := conv.Step(string(final))
	switch {
	case err != nil && proof == scram.ErrInvalidProof:
		return nil, e.wrong(why)
	case err != nil && proof == scram.ErrChannelBindingsDontMatch && mechanism == scramPlus:
		return nil, fatal(codeInvalidAuthorization, "SCRAM channel binding check failed")
	case err != nil && proof == scram.ErrChannelBindingsDontMatch:
		return nil, fatal(codeProtocolViolation, "unexpected SCRAM channel-binding attribute in client-final-message")
	case err != nil:
		return nil, malformed(err)
	case doomed || !conv.Valid():
		return nil, e.wrong(why)
	}
	return &pgproto3.AuthenticationSASLFinal{Data: []byte(proof)}, nil
}

// saslInitial reads the message that chooses the mechanism, and the client's
// first SCRAM message, which may be in it or follow an empty challenge.
func (e *exchange) saslInitial(offered []string) (mechanism string, first []byte, err error) {
	body, err := readResponse(e.conn, maxSASL)
	if err != nil {
		return "", nil, err
	}
	mechanism, rest, ok := cutString(body)
	if !ok || len(rest) < 4 {
		return "", nil, malformed(errors.New("initial response is too short"))
	}
	if !slices.Contains(offered, mechanism) {
		return "", nil, fatal(codeProtocolViolation, "client selected an invalid SASL authentication mechanism")
	}
	n := int32(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	if n == -1 && len(rest) == 0 {
		if err := send(e.conn, &pgproto3.AuthenticationSASLContinue{}); err != nil {
			return "", nil, err
		}
		first, err = readResponse(e.conn, maxSASL)
		return mechanism, first, err
	}
	if int64(n) != int64(len(rest)) {
		return "", nil, malformed(errors.New("initial response has a wrong length"))
	}
	return mechanism, rest, nil
}

// endPoint is what the proofs of clients are bound to over connections
// encrypted with cfg: the hash of its certificate (tls-server-end-point). A
// certificate signed without a hash, as by Ed25519, cannot be bound to.
func endPoint(cfg *tls.Config) scram.ChannelBinding {
	if cfg == nil || len(cfg.Certificates) != 1 {
		return scram.ChannelBinding{}
	}
	leaf, err := x509.ParseCertificate(cfg.Certificates[0].Certificate[0])
	if err != nil {
		return scram.ChannelBinding{}
	}
	b, _ := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	return b
}

// checkBinding holds the beginning of the client's first message, which says
// what it thinks of channel binding, to the mechanism it has chosen and to what
// was offered. Someone between the two may have changed the offer.
func (e *exchange) checkBinding(mechanism, first string) error {
	violation := func(detail string) error {
		r := fatal(codeProtocolViolation, "malformed SCRAM message")
		r.Detail = detail
		return r
	}
	flag, _, _ := strings.Cut(first, ",")
	kind, bound := strings.CutPrefix(flag, "p=")
	switch plus := mechanism == scramPlus; {
	case plus && (flag == "n" || flag == "y"):
		return violation("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.")
	case flag == "y" && e.binding.IsSupported():
		r := fatal(codeInvalidAuthorization, "SCRAM channel binding negotiation error")
		r.Detail = "The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding."
		return r
	case bound && !plus:
		return violation("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.")
	case bound && kind != string(scram.ChannelBindingTLSServerEndpoint):
		return fatal(codeProtocolViolation, `unsupported SCRAM channel-binding type "%s"`, kind)
	}
	return nil
}

func malformed(err error) error {
	return fatal(codeProtocolViolation, "malformed SCRAM message").withLog("%v", err)
}
