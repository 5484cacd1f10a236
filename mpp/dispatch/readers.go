package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Readers are executors beside the gang's own ones, as the reader gangs of
// Greenplum are: with them the slices of a statement run at the same time on a
// segment. A reader is a session of its own with the parameters of the gang's, so it
// sees neither what a transaction has written nor temporary tables, and it waits for
// locks like a stranger: somebody may wait for the gang's own executor and be waited
// for by the reader, which no server can see. It therefore gives up soon, and the
// statement is run without.

// ErrReaders says that a statement's readers could not be had, or that one would
// have waited for a lock. It can be run again with no Slice.Reader.
var ErrReaders = errors.New("readers are not to be had")

// errReaders is err, of a reader, as ErrReaders.
func errReaders(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	return &Error{PgError: e.PgError, Seg: e.Seg, Lost: e.Lost, Err: errors.Join(ErrReaders, e.Err)}
}

// sqlState is an error's SQLSTATE, "" when it has none.
func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// ReadersSee says whether readers see what the gang's own executors would, but for what
// their transaction has written: unless that has snapshots that they cannot have. Share
// gets them these, as long as nothing is written.
func (g *Gang) ReadersSee() bool {
	return !g.tx.active || g.Shares() || !g.Wrote() && g.tx.canShare()
}

// Shares says whether readers have the snapshots of the gang's statement: it takes new
// ones for each, or those of the transaction are shared.
func (g *Gang) Shares() bool { return !g.tx.fixed || g.tx.snapshots != nil }

// TellReaders has readers run sql, once each, before the next slices that they open:
// what the gang's own executors are told by Exec. Readers that have run another are
// made anew; "" is for none. By forget the own executors forget it: in a transaction
// they are told so that they do with its end, or that of a savepoint.
func (g *Gang) TellReaders(sql, forget string) {
	if g.tell, g.forget = sql, ""; sql != "" {
		g.forget = forget + "; "
	}
}

// besides returns the member's reader k, from 1.
func (m *member) besides(k int) *member {
	for len(m.beside) < k {
		m.beside = append(m.beside, &member{g: m.g, seg: m.seg, reader: len(m.beside) + 1})
	}
	return m.beside[k-1]
}

// dropAll is drop for the member and its readers.
func (m *member) dropAll() {
	m.drop()
	for _, r := range m.beside {
		r.drop()
	}
	if m.keeper != nil {
		m.keeper.drop()
	}
	m.beside, m.keeper = nil, nil
}

// readyReaders makes sure that readers are connected and have the parameters that
// the session has now.
func (g *Gang) readyReaders(ctx context.Context, readers []*member) error {
	if len(readers) == 0 {
		return nil
	}
	var now map[string]string
	if g.cfg.Settings != nil {
		var err error
		if now, err = g.cfg.Settings(ctx); err != nil {
			return err
		}
	}
	for _, m := range readers {
		if m.conn != nil && (!maps.Equal(m.has, now) || m.told != "" && m.told != g.tell) {
			m.drop()
		}
		if m.alive() || g.d.admitReader(ctx, m) {
			continue
		}
		if ctx.Err() != nil {
			return canceled(ctx)
		}
		return errReaders(newError("53300", fmt.Sprintf("seg%d has no connection to spare for a reader", m.seg.Content), nil))
	}
	if err := g.ready(ctx, readers); err != nil {
		return g.without(ctx, err)
	}
	tell := slices.DeleteFunc(slices.Clone(readers), func(m *member) bool { return m.told == g.tell || m.reader == isKeeper })
	err := g.each(ctx, tell, func(_ int, m *member) error {
		_, err := m.collect(m.conn.Exec(context.Background(), g.tell), "")
		if err == nil {
			m.told = g.tell
		}
		return err
	})
	return g.without(ctx, err)
}

// without is the failure of a reader that has not begun its slices as ErrReaders,
// unless the user has ended the statement.
func (g *Gang) without(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return canceled(ctx)
	case sqlState(err) == codeCanceled:
		return err
	}
	return errReaders(err)
}

// readerSettings are the parameters of a reader whose session has those of set.
func (d *Dispatcher) readerSettings(set map[string]string) map[string]string {
	r := maps.Clone(set)
	if r == nil {
		r = map[string]string{}
	}
	r["lock_timeout"] = strconv.FormatInt(max(1, d.p.ReaderLock.Milliseconds()), 10)
	r["idle_in_transaction_session_timeout"] = "0" // a keeper is in one as long as the session
	r["idle_session_timeout"] = strconv.FormatInt(max(1, d.p.ReaderIdle.Milliseconds()), 10)
	return r
}

// noteReaders has those who look for deadlocks know of the statement's readers, or
// forget them.
func (r *Running) noteReaders(there bool) {
	d := r.g.d
	for _, p := range r.parts {
		m := p.m
		if m.reader == 0 {
			continue
		}
		pid, until := m.pid, time.Time{}
		if !there {
			pid, until = 0, time.Now().Add(d.p.ReaderIdle)
		}
		r.g.setBackend(m, pid)
		d.noteReader(m, until)
	}
}

// noteReader notes until when a reader is there, if it stays idle; zero: it does not.
func (d *Dispatcher) noteReader(m *member, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.readers[m]; ok {
		d.readers[m] = until
	}
}

const (
	// keptConnections are those of a segment that neither readers nor sessions' own
	// executors have: recovery's, the look for locks, PostgreSQL's reserve.
	keptConnections = 12
	// roomAge is how long it is not asked again how many connections servers take:
	// they have to be restarted to take more.
	roomAge = time.Minute
)

// readerRoom is how many readers a segment can have.
type readerRoom struct {
	n  int
	at time.Time
}

// admitReader says whether a segment has a connection to spare for m, and takes it:
// so many as the coordinator takes are for the sessions' own executors.
func (d *Dispatcher) admitReader(ctx context.Context, m *member) bool {
	d.mu.Lock()
	room := d.rooms[m.seg]
	d.mu.Unlock()
	if time.Since(room.at) > roomAge {
		segment, err := d.connectionLimit(ctx, func() (*pgconn.PgConn, error) { return d.connectSegment(ctx, m.seg, "postgres") })
		if err != nil {
			return false
		}
		sessions, err := d.connectionLimit(ctx, func() (*pgconn.PgConn, error) { return d.connectCoordinator(ctx) })
		if err != nil {
			return false
		}
		room = readerRoom{segment - sessions - keptConnections, time.Now()}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rooms[m.seg] = room
	n, now := 0, time.Now()
	for r, until := range d.readers {
		switch {
		case r == m || !until.IsZero() && until.Before(now):
			delete(d.readers, r) // its server has ended it
		case r.seg == m.seg:
			n++
		}
	}
	if n >= room.n {
		return false
	}
	d.readers[m] = now.Add(d.p.ReaderIdle)
	return true
}

// connectionLimit is the max_connections of a server.
func (d *Dispatcher) connectionLimit(ctx context.Context, connect func() (*pgconn.PgConn, error)) (int, error) {
	conn, err := connect()
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := query(ctx, conn, "SHOW max_connections")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(rows[0][0]))
}
