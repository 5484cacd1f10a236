package proxy

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// logEvery is how often one kind of trouble that comes from outside, or that
// repeats, is logged.
const logEvery = 10 * time.Second

// limitLog logs repeating events at a bounded rate.
type limitLog struct {
	*slog.Logger
	mu   sync.Mutex
	last map[string]*logged
}

type logged struct {
	at      time.Time
	dropped int
}

// limited logs unless an event of that kind was logged less than logEvery ago;
// the next one that is logged says how many were not. kind must be of a small
// set.
func (l *limitLog) limited(kind string, level slog.Level, msg string, args ...any) {
	now := time.Now()
	l.mu.Lock()
	k := l.last[kind]
	if k == nil {
		if l.last == nil {
			l.last = map[string]*logged{}
		}
		k = &logged{}
		l.last[kind] = k
	} else if now.Sub(k.at) < logEvery {
		k.dropped++
		l.mu.Unlock()
		return
	}
	dropped := k.dropped
	k.at, k.dropped = now, 0
	l.mu.Unlock()
	if dropped > 0 {
		args = append(args, "more_not_logged", dropped)
	}
	l.Log(context.Background(), level, msg, args...)
}

// forget lets the next event of that kind be logged at once.
func (l *limitLog) forget(kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.last, kind)
}
