package session

import (
	"context"
	"sync"
	"time"
)

// lineLimit bounds the wait in a line: whoever is in front may wait for the lock of
// somebody who does nothing at all.
const lineLimit = time.Minute

// lines are where statements that change rows of one table on several segments
// wait for each other. Each segment locks rows in an order of its own, so two of
// them that change the same rows side by side would wait crosswise, again and
// again. The zero value is ready; any goroutine may use it.
type lines struct {
	mu  sync.Mutex
	all map[lineOf]*line
}

// lineOf names a table.
type lineOf struct {
	database string
	oid      uint32
}

type line struct {
	turn chan struct{} // holds one token while somebody has his turn
	in   int           // how many are in it, with the one whose turn it is
}

// formed says whether anybody is in the line.
func (l *lines) formed(of lineOf) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[of] != nil
}

// wait waits for the caller's turn, which lasts until leave is called, once. When
// ctx or limit ends first there is no turn, and leave is nil.
func (l *lines) wait(ctx context.Context, of lineOf, limit time.Duration) (leave func()) {
	l.mu.Lock()
	here := l.all[of]
	if here == nil {
		if here = (&line{turn: make(chan struct{}, 1)}); l.all == nil {
			l.all = map[lineOf]*line{}
		}
		l.all[of] = here
	}
	here.in++
	l.mu.Unlock()
	out := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if here.in--; here.in == 0 {
			delete(l.all, of)
		}
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case here.turn <- struct{}{}:
		return func() {
			<-here.turn
			out()
		}
	case <-ctx.Done():
	case <-t.C:
	}
	out()
	return nil
}

// enterLine has the session wait for its turn in a line, as long as it may wait for
// a lock. Without an error it may have none all the same, after lineLimit.
func (s *Session) enterLine(ctx context.Context, of lineOf) error {
	limit, why := lineLimit, error(nil)
	if d := s.waits[lockTimeout]; d > 0 && d < limit {
		limit, why = d, sqlError("55P03", "canceling statement due to lock timeout")
	}
	if d := s.waits[statementTimeout]; d > 0 && d < limit {
		limit, why = d, sqlError("57014", "canceling statement due to statement timeout")
	}
	if s.txn.leave = s.srv.lines.wait(ctx, of, limit); s.txn.leave != nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return why
}
