package link

import (
	"testing"
	"time"
)

// nobody takes what a Sender sends.
type nobody struct{}

func (*nobody) Send(int, *Packet)    {}
func (*nobody) Query(int, uint32)    {}
func (*nobody) Release(int, *Packet) {}
func (*nobody) Warn(int, *Packet)    {}

// TestTimerParams: when a packet that nobody acknowledges is sent again is
// rounded up to gp_interconnect_timer_period, and looked at once in each
// gp_interconnect_timer_checking_period.
func TestTimerParams(t *testing.T) {
	for _, c := range []struct {
		name         string
		p            Params
		first, again int // milliseconds: when it is sent again, and when after that
	}{
		{"defaults", Params{}, 40, 80}, // 21 is rounded up to 25, seen at 40; then 40 ms more
		{"fine checking", Params{TimerCheckingPeriod: time.Millisecond}, 25, 65},
		{"wide slots", Params{TimerCheckingPeriod: time.Millisecond, TimerPeriod: 50 * time.Millisecond}, 50, 100},
		{"rare checking", Params{TimerCheckingPeriod: 100 * time.Millisecond}, 100, 200},
		{"long round trip", Params{DefaultRTT: 300 * time.Millisecond, TimerCheckingPeriod: time.Millisecond}, 305, 905},
		{"least timeout", Params{MinRTO: 500 * time.Millisecond, TimerCheckingPeriod: time.Millisecond}, 505, 1005},
		{"at most a second", Params{DefaultRTT: time.Second, MinRTO: time.Second, TimerCheckingPeriod: time.Millisecond}, 1005, 2005},
	} {
		s := NewSender(0, c.p, 1, &nobody{})
		if !s.Take(0) {
			t.Fatal("no buffer")
		}
		p := &Packet{}
		s.Queue(ms(1), 0, p)
		var got []int
		for range 2 {
			tries := p.Tries
			for p.Tries == tries {
				next, ok := s.Next()
				if !ok {
					t.Fatalf("%s: nothing is due", c.name)
				}
				s.Tick(next)
				if p.Tries > tries {
					got = append(got, int(next.Milliseconds()))
				}
			}
		}
		if got[0] != c.first || got[1] != c.again {
			t.Errorf("%s: sent again at %v ms, want %d and %d", c.name, got, c.first, c.again)
		}
	}
}
