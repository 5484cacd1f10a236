package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// A server that asks for rows when the session has just given the statement up
// gets an error.
func TestSourceAfterTheEnd(t *testing.T) {
	set := &sources{s: &Session{ic: struct{ motion.Interconnect }{}}}
	src := &source{set: set, index: 1}
	if err := set.finishRun(); err != nil {
		t.Fatal(err)
	}
	if err := src.serve(t.Context(), nil); err == nil || set.err() == nil {
		t.Errorf("%v, noted %v", err, set.err())
	}
}

// Only the waiting for rows counts, and only once all have been sent.
func TestPatience(t *testing.T) {
	for _, c := range []struct {
		what string
		play func(p *patience, begun chan struct{})
		lost bool
	}{
		{"executors at work", func(p *patience, begun chan struct{}) { time.Sleep(10 * arrivalLimit) }, false},
		{"rows come", func(p *patience, begun chan struct{}) {
			close(begun)
			for range 100 {
				time.Sleep(arrivalLimit - time.Second)
				p.step()
				p.step()
			}
		}, false},
		{"a slow client", func(p *patience, begun chan struct{}) {
			close(begun)
			p.step()
			time.Sleep(10 * arrivalLimit)
		}, false},
		{"nothing comes", func(p *patience, begun chan struct{}) {
			close(begun)
			p.step()
			p.step()
			time.Sleep(arrivalLimit + 2*arrivalStep)
		}, true},
		{"nothing has come for nearly as long", func(p *patience, begun chan struct{}) {
			close(begun)
			time.Sleep(arrivalLimit / 2)
			p.step()
			p.step()
			time.Sleep(arrivalLimit - arrivalStep)
		}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p patience
				lost := false
				begun := make(chan struct{})
				stop := p.after(begun, func() { lost = true })
				c.play(&p, begun)
				stop()
				synctest.Wait()
				if lost != c.lost {
					t.Errorf("given up: %v", lost)
				}
			})
		})
	}
}
