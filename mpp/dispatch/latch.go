package dispatch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// The two classes of a latch's holders.
const (
	reading = iota
	committing
)

// latch keeps two classes of holders apart. Any number of one class may hold
// it together. When both classes want it they take turns: who comes while the
// other class waits waits too, and is let in with all others of its class when
// its turn comes.
type latch struct {
	mu      sync.Mutex
	active  [2]int
	waiting [2][]*hold
	commits uint64 // times that committers have been let in
}

// hold is one holder's claim.
type hold struct {
	l        *latch
	class    int
	limit    time.Duration
	admitted chan struct{} // nil when admitted at once
	timer    *time.Timer
	again    func() time.Duration
	done     chan struct{} // closed by release
	released atomic.Bool
	commits  uint64 // of the latch, when it was admitted
}

// acquire waits for its class's turn. The claim ends with release. After limit
// again is asked how much longer it may last, and when that is over again; with
// nothing more, or without again, the claim ends by itself. While nobody of the
// other class waits it is not asked, and the claim lasts.
func (l *latch) acquire(ctx context.Context, class int, limit time.Duration, again func() time.Duration) (*hold, error) {
	h := &hold{l: l, class: class, limit: limit, again: again, done: make(chan struct{})}
	l.mu.Lock()
	other := 1 - class
	if l.active[other] == 0 && len(l.waiting[other]) == 0 {
		l.active[class]++
		l.enter(h)
		l.mu.Unlock()
		h.timer = time.AfterFunc(limit, h.overstay)
		return h, nil
	}
	h.admitted = make(chan struct{})
	l.waiting[class] = append(l.waiting[class], h)
	l.mu.Unlock()
	select {
	case <-h.admitted:
		h.timer = time.AfterFunc(limit, h.overstay)
		return h, nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	for i, w := range l.waiting[class] {
		if w == h {
			l.waiting[class] = append(l.waiting[class][:i:i], l.waiting[class][i+1:]...)
			l.admit(other)
			l.mu.Unlock()
			return nil, context.Cause(ctx)
		}
	}
	l.mu.Unlock() // admitted in the meantime
	h.free()
	return nil, context.Cause(ctx)
}

// release ends the claim; it may be called more than once, and on nil.
func (h *hold) release() {
	if h == nil {
		return
	}
	h.timer.Stop()
	h.free()
}

// overstay runs in the timer's goroutine when the limit is over.
func (h *hold) overstay() {
	for h.again != nil {
		d := h.limit
		if h.l.wanted(1 - h.class) {
			d = h.again()
		}
		if d <= 0 {
			break
		}
		select {
		case <-h.done:
			return
		case <-time.After(d):
		}
	}
	h.free()
}

// wanted says whether somebody of a class waits.
func (l *latch) wanted(class int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting[class]) > 0
}

func (h *hold) free() {
	if h.released.Swap(true) {
		return
	}
	close(h.done)
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	h.l.active[h.class]--
	h.l.admit(1 - h.class)
}

// enter notes that h is let in. l.mu is held.
func (l *latch) enter(h *hold) {
	if h.class == committing {
		l.commits++
	}
	h.commits = l.commits
}

// torn says whether a reader's claim has ended by itself and somebody may have
// committed since it began.
func (h *hold) torn() bool {
	if h == nil || h.held() {
		return false
	}
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	return h.l.commits != h.commits
}

// held says whether the claim still stands.
func (h *hold) held() bool { return !h.released.Load() }

// admit lets in whoever may enter now, trying class first. l.mu is held.
func (l *latch) admit(class int) {
	for range 2 {
		other := 1 - class
		if len(l.waiting[class]) > 0 && l.active[other] == 0 && (l.active[class] == 0 || len(l.waiting[other]) == 0) {
			for _, h := range l.waiting[class] {
				l.enter(h)
				close(h.admitted)
			}
			l.active[class] += len(l.waiting[class])
			l.waiting[class] = nil
		}
		class = other
	}
}
