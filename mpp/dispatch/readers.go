package dispatch

import (
	"context"
	"errors"
	"maps"
	"strconv"

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
	m.beside = nil
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
		if m.conn != nil && !maps.Equal(m.has, now) {
			m.drop()
		}
	}
	if err := g.ready(ctx, readers); err != nil {
		if ctx.Err() != nil || sqlState(err) == codeCanceled {
			return err
		}
		return errReaders(err)
	}
	return nil
}

// readerSettings are the parameters of a reader whose session has those of set.
func (d *Dispatcher) readerSettings(set map[string]string) map[string]string {
	r := maps.Clone(set)
	if r == nil {
		r = map[string]string{}
	}
	r["lock_timeout"] = strconv.FormatInt(max(1, d.p.ReaderLock.Milliseconds()), 10)
	r["idle_session_timeout"] = strconv.FormatInt(max(1, d.p.ReaderIdle.Milliseconds()), 10)
	return r
}

// noteReaders has those who look for deadlocks know of the statement's readers, or
// forget them.
func (r *Running) noteReaders(there bool) {
	for _, p := range r.parts {
		if p.m.reader > 0 && there {
			r.g.setBackend(p.m, p.m.pid)
		} else if p.m.reader > 0 {
			r.g.setBackend(p.m, 0)
		}
	}
}
