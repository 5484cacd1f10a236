package querybench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/trunkline-db/trunkline/instance"
)

const (
	connectTime = 30 * time.Second
	closeTime   = 2 * time.Second
	// endTime is how long a server may take to end what it was told to end.
	endTime = 20 * time.Second
)

// errLimit is returned for a query that was ended by its limit.
var errLimit = errors.New("not done by the limit")

// side is a server, or the cluster in one interconnect type, and a session
// there. Its methods are called one at a time.
type side struct {
	name, host string
	port       int
	options    string         // of sessions
	conn       *pgconn.PgConn // nil: none is open
}

func (s *side) config() (*pgconn.Config, error) {
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", s.host, s.port, instance.Superuser))
	if err != nil {
		return nil, err
	}
	// Whatever the environment says, all sessions are alike.
	cfg.RuntimeParams = map[string]string{"application_name": "trunkline bench queries"}
	if s.options != "" {
		cfg.RuntimeParams["options"] = s.options
	}
	// A statement whose context ends is cancelled at the server.
	cfg.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: endTime}
	}
	return cfg, nil
}

// open opens the session if there is none.
func (s *side) open(ctx context.Context) (fresh bool, err error) {
	if s.conn != nil && !s.conn.IsClosed() {
		return false, nil
	}
	cfg, err := s.config()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if s.conn, err = pgconn.ConnectConfig(ctx, cfg); err != nil {
		return false, fmt.Errorf("connect to %s: %w", s.name, err)
	}
	return true, nil
}

// close ends the session without waiting for a server that does not answer.
func (s *side) close() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = s.conn.Close(ctx)
	s.conn = nil
}

// do runs a statement.
func (s *side) do(ctx context.Context, limit time.Duration, sql string) error {
	if _, err := s.open(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := s.conn.Exec(ctx, sql).ReadAll()
	return err
}

// ask runs a query to its end, or to its limit, which is the error errLimit.
// The rows are in text, NULL as \N, fields joined by bars. The time is that
// from sending the query until the last row has come.
func (s *side) ask(ctx context.Context, sql string, limit time.Duration) (rows []string, took time.Duration, err error) {
	fresh, err := s.open(ctx)
	if err == nil && fresh {
		// The cluster starts its executors for the first query of a session.
		err = s.do(ctx, connectTime, "select count(*) from supplier")
	}
	if err != nil {
		return nil, 0, err
	}
	qctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	results, err := s.conn.Exec(qctx, sql).ReadAll()
	took = time.Since(began)
	if err != nil {
		if s.conn.IsClosed() {
			s.conn = nil
		}
		if qctx.Err() != nil {
			err = errLimit
		}
		return nil, took, err
	}
	for _, res := range results {
		for _, row := range res.Rows {
			fields := make([]string, len(row))
			for i, f := range row {
				if fields[i] = string(f); f == nil {
					fields[i] = `\N`
				}
			}
			rows = append(rows, strings.Join(fields, "|"))
		}
	}
	return rows, took, nil
}
