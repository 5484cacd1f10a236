package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// InstallEverywhere installs the catalog in every database that initdb has
// made. socketDir is that of the instance's PostgreSQL server, which must run
// and let Info.Superuser in.
func InstallEverywhere(ctx context.Context, socketDir string, info Info) error {
	connect := func(db string) (*pgconn.PgConn, error) {
		return pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=%s", socketDir, info.Port, info.Superuser, db))
	}
	// template0 is what databases in other encodings are made from, and those
	// that pg_dump restores.
	admin, err := connect("postgres")
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	allow := func(yes bool) error {
		_, err := admin.Exec(ctx, fmt.Sprintf("ALTER DATABASE template0 ALLOW_CONNECTIONS %t", yes)).ReadAll()
		return err
	}
	if err := allow(true); err != nil {
		return err
	}
	for _, db := range []string{"template1", "postgres", "template0"} {
		conn, err := connect(db)
		if err != nil {
			return err
		}
		err = Install(ctx, conn, info)
		conn.Close(ctx)
		if err != nil {
			return err
		}
	}
	return allow(false)
}
