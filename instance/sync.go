package instance

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/datadir"
)

const (
	// syncInterval is how often the coordinator looks at its standby.
	syncInterval = 400 * time.Millisecond
	// firstSyncInterval is the same while it was not seen yet: a start waits
	// for it.
	firstSyncInterval = 100 * time.Millisecond
	// syncGrace is how long commits wait for a standby that is gone.
	syncGrace = 2 * time.Second
)

// standbySeen asks whether a standby streams and has answered of late: one
// that hangs keeps its connection but reports nothing, and it reports every
// second (wal_receiver_status_interval).
const standbySeen = `SELECT count(*) FROM pg_stat_replication
	WHERE state = 'streaming' AND application_name = '` + walReceiverName + `'
	AND (reply_time IS NULL OR clock_timestamp() - reply_time < interval '2 s')`

// standbyWatch tells want whether commits shall wait for the standby: "*"
// while it streams, "" when it has been gone for syncGrace.
type standbyWatch struct {
	dir  datadir.Dir
	port int
	want func(names string)
	log  *slog.Logger
}

func (w *standbyWatch) run(ctx context.Context) {
	var conn *pgconn.PgConn
	defer func() {
		if conn != nil {
			closeConn(conn)
		}
	}()
	var lastSeen time.Time
	for {
		interval := syncInterval
		if lastSeen.IsZero() {
			interval = firstSyncInterval
		}
		if !sleep(ctx, interval) {
			return
		}
		if conn == nil || conn.IsClosed() {
			c, err := connectLocal(ctx, w.dir, w.port, "standby watch")
			if err != nil {
				continue // the server is down, and nobody commits
			}
			conn = c
		}
		seen, err := w.look(ctx, conn)
		if err != nil {
			closeConn(conn)
			conn = nil
			continue
		}
		switch now := time.Now(); {
		case seen:
			lastSeen = now
			w.want("*")
		case now.Sub(lastSeen) > syncGrace:
			w.want("")
		}
	}
}

func (w *standbyWatch) look(ctx context.Context, conn *pgconn.PgConn) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	res := conn.ExecParams(ctx, standbySeen, nil, nil, nil, nil).Read()
	if res.Err != nil {
		return false, res.Err
	}
	return len(res.Rows) == 1 && string(res.Rows[0][0]) != "0", nil
}

// connectLocal connects to the instance's own server as the superuser.
func connectLocal(ctx context.Context, dir datadir.Dir, port int, name string) (*pgconn.PgConn, error) {
	// ParseConfig with everything given: nothing comes from PG* variables
	// that would matter.
	cfg, err := pgconn.ParseConfig("host=" + quoteConninfo(dir.SocketDir()) + " port=" + strconv.Itoa(port) +
		" user=" + Superuser + " dbname=postgres sslmode=disable connect_timeout=2")
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams = map[string]string{"application_name": "trunkline " + name}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return pgconn.ConnectConfig(ctx, cfg)
}

func closeConn(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}
