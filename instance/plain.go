package instance

import (
	"context"
	"fmt"
	"strconv"

	"github.com/trunkline-db/trunkline/datadir"
)

// PlainPort is the port in the name of the socket of a server that [RunPlain]
// runs, which listens on no other.
const PlainPort = 5432

// RunPlain runs a PostgreSQL server of a data directory that is no instance's,
// as its owner, calls f, and stops the server again. The server knows nothing
// of Trunkline and obeys the directory's own files; only its unix socket is in
// socketDir, for [PlainPort], and it has no other. It dies with this process.
func RunPlain(ctx context.Context, dir, socketDir string, f func(context.Context) error) error {
	uid, gid, err := owner(dir)
	if err != nil {
		return err
	}
	cred, err := Credential(uid, gid)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	bindir, err := FindPostgres()
	if err != nil {
		return err
	}
	p := &postgres{
		dir: datadir.Dir(dir), port: PlainPort, bindir: bindir, cred: cred, env: Environ(uid),
		args: []string{
			"-D", dir, "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700",
			"-c", "unix_socket_directories=" + quoteListItem(socketDir), "-c", "port=" + strconv.Itoa(PlainPort),
		},
		prepare: func() error { return nil },
	}
	return p.during(ctx, f)
}
