package auth

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/xdg-go/scram"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type role struct {
	secret string
	login  bool
}

// roles is a pg_authid for tests.
type roles map[string]role

// testRoles: alice and nologin have a SCRAM password, mona an md5 one, empty
// has none; each password is the role's name and "-secret".
func testRoles(t testing.TB) roles {
	t.Helper()
	return roles{
		"alice":   {scramVerifier(t, "alice-secret"), true},
		"nologin": {scramVerifier(t, "nologin-secret"), false},
		"mona":    {md5Verifier("mona", "mona-secret"), true},
		"empty":   {"", true},
		"ümlaut":  {scramVerifier(t, "pässwörd \u00bd"), true},
	}
}

func scramVerifier(t testing.TB, password string) string {
	t.Helper()
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	salt := "0123456789abcdef"
	v, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: salt, Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", v.Iters, b64([]byte(salt)), b64(v.StoredKey), b64(v.ServerKey))
}

func md5Verifier(user, password string) string {
	sum := md5.Sum([]byte(password + user))
	return "md5" + hex.EncodeToString(sum[:])
}

func (r roles) config(hba *HBA) Config {
	return Config{
		HBA: func() (*HBA, error) { return hba, nil },
		Verifier: func(_ context.Context, user string) (string, bool, bool, error) {
			if user == "starting" {
				return "", false, false, &pgconn.PgError{Code: "57P03", Message: "the database system is starting up"}
			}
			x, ok := r[user]
			return x.secret, ok, x.login, nil
		},
		MemberOf: func(_ context.Context, user, role string) (bool, error) {
			return user == role || user == "alice" && role == "staff", nil
		},
	}
}
