package icbench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/instance"
)

// maxText is how many rows of a result are kept to be looked at.
const maxText = 1000

// session is a client's connection.
type session struct {
	conn *pgconn.PgConn
	// moved are the bytes between client and coordinator, which are on the same
	// loopback as everything else there.
	moved atomic.Int64
	got   atomic.Int64 // bytes of rows
}

// result is what came of a query. The rows of a big one are thrown away.
type result struct {
	rows, bytes int64
	text        []string // of the first rows, fields joined by |
}

// connect opens a session on the coordinator with an interconnect type.
func (s *site) connect(ctx context.Context, typ string) (*session, error) {
	return s.open(ctx, -1, "-c gp_interconnect_type="+typ+" -c gp_interconnect_log_stats=on")
}

// utility opens a session on the PostgreSQL server of one segment.
func (s *site) utility(ctx context.Context, content int) (*session, error) {
	return s.open(ctx, content, "-c gp_role=utility")
}

func (s *site) open(ctx context.Context, content int, options string) (*session, error) {
	var c session
	for _, inst := range s.c.Instances() {
		if int(inst.Content) != content {
			continue
		}
		cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable connect_timeout=20",
			inst.Address, inst.Port, instance.Superuser))
		if err != nil {
			return nil, err
		}
		cfg.RuntimeParams = map[string]string{"options": options, "application_name": "trunkline bench interconnect"}
		cfg.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) {
			conn, err := s.dial(ctx, content, address)
			if err != nil {
				return nil, err
			}
			return &countedConn{conn, &c.moved}, nil
		}
		if c.conn, err = pgconn.ConnectConfig(ctx, cfg); err != nil {
			return nil, fmt.Errorf("connect to %v: %w", inst, err)
		}
		return &c, nil
	}
	return nil, fmt.Errorf("there is no instance with content %d", content)
}

// close ends the session without waiting for a server that does not answer.
func (c *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = c.conn.Close(ctx)
}

// run runs a statement to its end. When it fails, what came before is returned
// with the error; when ctx ends, the connection is of no more use.
func (c *session) run(ctx context.Context, sql string) (r result, err error) {
	all := c.conn.Exec(ctx, sql)
	for all.NextResult() {
		rr := all.ResultReader()
		for rr.NextRow() {
			r.rows++
			row := rr.Values()
			n := 0
			for _, f := range row {
				n += len(f)
			}
			r.bytes += int64(n)
			c.got.Add(int64(n))
			if r.rows <= maxText {
				fields := make([]string, len(row))
				for i, f := range row {
					fields[i] = string(f)
				}
				r.text = append(r.text, strings.Join(fields, "|"))
			}
		}
		if _, err := rr.Close(); err != nil {
			return r, errors.Join(err, all.Close())
		}
	}
	return r, all.Close()
}

// ask runs a query of the set and looks whether the answer is right.
func (c *session) ask(ctx context.Context, q *query) (result, error) {
	r, err := c.run(ctx, q.sql)
	switch {
	case err != nil:
		return r, err
	case q.answer != "" && (len(r.text) != 1 || r.text[0] != q.answer):
		return r, fmt.Errorf("WRONG ANSWER of query %s: %.100q, expected %q", q.name, r.text, q.answer)
	case q.rows != 0 && r.rows != q.rows:
		return r, fmt.Errorf("WRONG ANSWER of query %s: %d rows, expected %d", q.name, r.rows, q.rows)
	}
	return r, nil
}

// countedConn counts the bytes that go through it.
type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// sqlState is that of a server's error, "" for others.
func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}
