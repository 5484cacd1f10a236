package session

import (
	"context"
	"testing"
	"time"
)

// TestLines wants one turn at a time for each table, and whoever gives up to be in
// nobody's way.
func TestLines(t *testing.T) {
	var l lines
	a, b := lineOf{"db", 1}, lineOf{"db", 2}
	leave := l.wait(context.Background(), a, time.Minute)
	if !l.formed(a) || l.formed(b) {
		t.Error("the line is not where it should be")
	}
	l.wait(context.Background(), b, time.Minute)() // does not wait for the other table's
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan func())
	go func() { gone <- l.wait(ctx, a, time.Minute) }()
	next := make(chan func())
	go func() { next <- l.wait(context.Background(), a, time.Minute) }()
	cancel()
	if (<-gone) != nil || l.wait(context.Background(), a, time.Millisecond) != nil {
		t.Error("two have their turn")
	}
	select {
	case <-next:
		t.Fatal("two have their turn")
	case <-time.After(20 * time.Millisecond):
	}
	leave()
	(<-next)()
	if l.formed(a) || len(l.all) != 0 {
		t.Errorf("lines are left: %v", l.all)
	}
}
