package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/trunkline-db/trunkline/instance"
)

// RunPlain makes a single PostgreSQL server in dir, which must not be there,
// with PostgreSQL's own configuration, by the same initdb and run by the same
// user as a cluster's servers. It calls f while the server runs, reachable as
// the superuser [instance.Superuser] by the socket in socketDir for
// [instance.PlainPort] and in no other way. Then the server is stopped and dir
// removed, also when ctx ends.
func RunPlain(ctx context.Context, dir string, f func(ctx context.Context, socketDir string) error) (err error) {
	bindir, err := instance.FindPostgres()
	if err != nil {
		return err
	}
	acct, err := accountFor()
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := acct.chown(dir); err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	if err := acct.initdb(ctx, bindir, data); err != nil {
		return err
	}
	return instance.RunPlain(ctx, data, dir, func(ctx context.Context) error { return f(ctx, dir) })
}
