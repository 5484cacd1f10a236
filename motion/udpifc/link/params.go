package link

import (
	"fmt"
	"time"
)

// Params are the parameters of flow control and retransmission. Each is named
// after the Greenplum parameter it is, without gp_interconnect_.
type Params struct {
	// Capacity is fc_method = capacity: no window but the receiver's, and only
	// the oldest packet is sent again. Else it is loss, which also reacts to
	// lost packets.
	Capacity bool
	// QueueDepth is how many packets a connection's receiver holds, 1 to 4096;
	// a sender begins with as much credit. 0 is 4.
	QueueDepth int
	// SndQueueDepth is how many packets a sender holds for each connection
	// until they are acknowledged, 1 to 4096. 0 is 2.
	SndQueueDepth int
	// DefaultRTT is what the round trip is taken for before one was measured,
	// 1 ms to 1 s. 0 is 20 ms.
	DefaultRTT time.Duration
	// MinRTO is the least time after which a packet is sent again, 1 ms to
	// 1 s. 0 is 20 ms.
	MinRTO time.Duration
	// TimerPeriod is to what the times of retransmission are rounded up, 1 ms
	// to 100 ms. 0 is 5 ms.
	TimerPeriod time.Duration
	// TimerCheckingPeriod is how often a sender that hears nothing looks
	// whether it is time, 1 ms to 100 ms. 0 is 20 ms.
	TimerCheckingPeriod time.Duration
	// TransmitTimeout and MinRetries say when a sender gives up: when a packet
	// has not been acknowledged for so long and after so many retries. 1 s to
	// 2 h, 0 is 1 h; 1 to 4096, 0 is 100.
	TransmitTimeout time.Duration
	MinRetries      int
}

// WithDefaults returns p with Greenplum's defaults for what is 0.
func (p Params) WithDefaults() Params {
	for _, f := range []struct {
		v   *int
		def int
	}{{&p.QueueDepth, 4}, {&p.SndQueueDepth, 2}, {&p.MinRetries, 100}} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&p.DefaultRTT, 20 * time.Millisecond},
		{&p.MinRTO, 20 * time.Millisecond},
		{&p.TimerPeriod, 5 * time.Millisecond},
		{&p.TimerCheckingPeriod, 20 * time.Millisecond},
		{&p.TransmitTimeout, time.Hour},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
	}
	return p
}

// Check returns an error that names the first value out of its range. Values
// of 0 are in range.
func (p Params) Check() error {
	p = p.WithDefaults()
	for _, f := range []struct {
		name string
		v    int
	}{
		{"gp_interconnect_queue_depth", p.QueueDepth},
		{"gp_interconnect_snd_queue_depth", p.SndQueueDepth},
		{"gp_interconnect_min_retries_before_timeout", p.MinRetries},
	} {
		if f.v < 1 || f.v > 4096 {
			return fmt.Errorf("motion/udpifc: %d is outside the valid range for parameter %q (1 .. 4096)", f.v, f.name)
		}
	}
	for _, f := range []struct {
		name     string
		v        time.Duration
		min, max time.Duration
	}{
		{"gp_interconnect_default_rtt", p.DefaultRTT, time.Millisecond, time.Second},
		{"gp_interconnect_min_rto", p.MinRTO, time.Millisecond, time.Second},
		{"gp_interconnect_timer_period", p.TimerPeriod, time.Millisecond, 100 * time.Millisecond},
		{"gp_interconnect_timer_checking_period", p.TimerCheckingPeriod, time.Millisecond, 100 * time.Millisecond},
		{"gp_interconnect_transmit_timeout", p.TransmitTimeout, time.Second, 2 * time.Hour},
	} {
		if f.v < f.min || f.v > f.max {
			return fmt.Errorf("motion/udpifc: %v is outside the valid range for parameter %q (%v .. %v)", f.v, f.name, f.min, f.max)
		}
	}
	return nil
}

const (
	// The bounds of the estimated round trip and of its deviation.
	minRTT = 100 * time.Microsecond
	maxRTT = 200 * time.Millisecond
	// maxRTO is the longest pause before a packet is sent again.
	maxRTO = time.Second
	// maxShift bounds the doubling of that pause.
	maxShift = 12
	// probeAfter is how long a sender without credit waits for an ack before
	// it asks for one, and between two questions.
	probeAfter = 512 * time.Millisecond
	// reports is how many reports of the same gap in a row make a sender send
	// what is missing before its time.
	reports = 3
	// stopFirst and stopLast bound the pauses between two stop messages to a
	// sender that has not ended its stream.
	stopFirst = 20 * time.Millisecond
	stopLast  = time.Second
)

// capacityPauses are the pauses before the oldest packet is sent again in
// capacity mode; the last is repeated.
var capacityPauses = [...]time.Duration{
	time.Millisecond, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond,
	16 * time.Millisecond, 32 * time.Millisecond, 64 * time.Millisecond, 128 * time.Millisecond,
	256 * time.Millisecond, 512 * time.Millisecond,
}
