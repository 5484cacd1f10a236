package dispatch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func mustAcquire(t *testing.T, l *latch, class int, limit time.Duration) *hold {
	t.Helper()
	h, err := l.acquire(context.Background(), class, limit, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestLatchClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l latch
		r1 := mustAcquire(t, &l, reading, time.Hour)
		r2 := mustAcquire(t, &l, reading, time.Hour)
		got := make(chan *hold)
		for range 2 {
			go func() { got <- mustAcquire(t, &l, committing, time.Hour) }()
		}
		synctest.Wait()
		// A reader that comes now must not starve the commits.
		late := make(chan *hold)
		go func() { late <- mustAcquire(t, &l, reading, time.Hour) }()
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("a commit entered beside readers")
		case <-late:
			t.Fatal("a reader overtook the waiting commits")
		default:
		}
		r1.release()
		r1.release() // harmless
		r2.release()
		c1, c2 := <-got, <-got // both enter together
		select {
		case <-late:
			t.Fatal("a reader entered beside commits")
		default:
		}
		c1.release()
		c2.release()
		(<-late).release()
		if l.active != [2]int{} {
			t.Errorf("active %v", l.active)
		}
	})
}

func TestLatchLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l latch
		h := mustAcquire(t, &l, reading, 20*time.Millisecond)
		start := time.Now()
		c := mustAcquire(t, &l, committing, time.Second)
		if d := time.Since(start); d != 20*time.Millisecond {
			t.Errorf("waited %v", d)
		}
		h.release() // too late, and must not disturb
		start = time.Now()
		r := mustAcquire(t, &l, reading, time.Second)
		if d := time.Since(start); d != time.Second {
			t.Errorf("waited %v", d)
		}
		c.release()
		r.release()
		if l.active != [2]int{} {
			t.Errorf("active %v", l.active)
		}
	})
}

func TestLatchAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l latch
		asked := 0
		start := time.Now()
		h, err := l.acquire(context.Background(), reading, 20*time.Millisecond, func() time.Duration {
			if asked++; asked == 3 {
				return 0
			}
			return 10 * time.Millisecond
		})
		if err != nil {
			t.Fatal(err)
		}
		mustAcquire(t, &l, committing, time.Hour).release()
		if d := time.Since(start); d != 40*time.Millisecond || h.held() {
			t.Errorf("ended after %v", d)
		}
		h, _ = l.acquire(context.Background(), reading, time.Millisecond, func() time.Duration { return time.Hour })
		time.Sleep(time.Second)
		h.release() // ends the watching goroutine too
		if h.held() || l.active != [2]int{} {
			t.Error("still held")
		}
	})
}

func TestLatchCanceledWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l latch
		r := mustAcquire(t, &l, reading, time.Hour)
		ctx, cancel := context.WithCancel(context.Background())
		failed := make(chan error)
		go func() {
			_, err := l.acquire(ctx, committing, time.Hour, nil)
			failed <- err
		}()
		synctest.Wait()
		entered := make(chan *hold)
		go func() { entered <- mustAcquire(t, &l, reading, time.Hour) }()
		synctest.Wait()
		cancel()
		if err := <-failed; err == nil {
			t.Fatal("acquired")
		}
		// Nobody of the other class waits any more.
		(<-entered).release()
		r.release()
		if l.active != [2]int{} || len(l.waiting[0])+len(l.waiting[1]) != 0 {
			t.Errorf("left behind: %v", l.active)
		}
	})
}
