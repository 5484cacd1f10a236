package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

const (
	// maxPassword bounds a password message, in bytes.
	maxPassword = 65535
	// maxSASL bounds a SCRAM message, in bytes.
	maxSASL = 1024
)

// exchange is one client's proof that it knows a password.
type exchange struct {
	conn     net.Conn
	user     string
	secret   string               // stored verifier
	noSecret string               // why there is none, "" if there is one
	nonce    []byte               // for mock salts
	binding  scram.ChannelBinding // none without a certificate to bind to
}

// wrong is what every failed proof looks like to the client.
func (e *exchange) wrong(why string) error {
	r := fatal(codeInvalidPassword, `password authentication failed for user "%s"`, e.user)
	if e.noSecret != "" {
		why = e.noSecret
	}
	if why != "" {
		r.withLog("%s", why)
	}
	return r
}

func (e *exchange) readPassword() (string, error) {
	body, err := readResponse(e.conn, maxPassword)
	if err != nil {
		return "", err
	}
	if len(body) == 0 || bytes.IndexByte(body, 0) != len(body)-1 {
		return "", fatal(codeProtocolViolation, "invalid password packet size")
	}
	if len(body) == 1 {
		return "", fatal(codeInvalidPassword, "empty password returned by client")
	}
	return string(body[:len(body)-1]), nil
}

// cleartext asks for the password itself.
func (e *exchange) cleartext() error {
	if err := send(e.conn, &pgproto3.AuthenticationCleartextPassword{}); err != nil {
		return err
	}
	password, err := e.readPassword()
	if err != nil {
		return err
	}
	if e.secret != "" && plainMatches(e.secret, e.user, password) {
		return nil
	}
	return e.wrong("")
}

// plainMatches compares a password with a stored verifier.
func plainMatches(secret, user, password string) bool {
	if isMD5(secret) {
		return hmac.Equal([]byte(secret), []byte("md5"+md5Hex(password+user)))
	}
	v, err := parseVerifier(secret)
	if err != nil {
		return false
	}
	// A password that SASLprep refuses counts as it is, as in PostgreSQL.
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		c, err = scram.SHA256.NewClientUnprepped("", password, "")
	}
	if err != nil {
		return false
	}
	got, err := c.GetStoredCredentialsWithError(v.KeyFactors)
	return err == nil && hmac.Equal(got.ServerKey, v.ServerKey)
}

// isMD5 says whether a stored verifier is an md5 one.
func isMD5(secret string) bool {
	return len(secret) == 35 && strings.HasPrefix(secret, "md5") &&
		strings.Trim(secret[3:], "0123456789abcdef") == ""
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// md5 has the client hash its md5 verifier with a salt.
func (e *exchange) md5() error {
	var salt [4]byte
	rand.Read(salt[:])
	if err := send(e.conn, &pgproto3.AuthenticationMD5Password{Salt: salt}); err != nil {
		return err
	}
	answer, err := e.readPassword()
	if err != nil {
		return err
	}
	if hmac.Equal([]byte(answer), []byte("md5"+md5Hex(e.secret[3:]+string(salt[:])))) {
		return nil
	}
	return e.wrong("")
}
