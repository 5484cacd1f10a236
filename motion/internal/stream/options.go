package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/trunkline-db/trunkline/motion"
)

// The range of gp_max_packet_size, in bytes, and its default.
const (
	MinPacket     = 512
	MaxPacket     = 65507
	DefaultPacket = 8192
)

// DefaultTransmitTimeout is gp_interconnect_transmit_timeout unless set.
const DefaultTransmitTimeout = time.Hour

// DefaultSetupTimeout is gp_interconnect_setup_timeout unless set.
const DefaultSetupTimeout = 2 * time.Hour

// Options are what the streams of one interconnect have in common. The zero
// value is ready for use.
type Options struct {
	// MaxPacket is the longest packet sent, in bytes, from MinPacket to
	// MaxPacket; 0 is DefaultPacket. Receivers take packets of any size.
	MaxPacket int
	// TransmitTimeout is how long Close of a sender waits for the receivers;
	// 0 is DefaultTransmitTimeout.
	TransmitTimeout time.Duration
	// HandOver says that a sender has done its part when the stream is written:
	// a proxy takes it to its end, and a receiver to whom it does not come is
	// told by its own proxy. Else the sender waits for its receivers.
	HandOver bool
	// Explain returns why the connection with peer was lost, "" when it does
	// not know, before ctx ends. It is called at most once a motion. May be
	// nil.
	Explain func(ctx context.Context, peer motion.Peer) string
}

// Check returns an error when a value is out of range.
func (o Options) Check() error {
	if o.MaxPacket != 0 && (o.MaxPacket < MinPacket || o.MaxPacket > MaxPacket) {
		return fmt.Errorf("motion: maximum packet size %d is not between %d and %d", o.MaxPacket, MinPacket, MaxPacket)
	}
	if o.TransmitTimeout < 0 {
		return fmt.Errorf("motion: transmit timeout %v is negative", o.TransmitTimeout)
	}
	return nil
}

func (o Options) maxPacket() int {
	if o.MaxPacket == 0 {
		return DefaultPacket
	}
	return o.MaxPacket
}

func (o Options) transmitTimeout() time.Duration {
	if o.TransmitTimeout == 0 {
		return DefaultTransmitTimeout
	}
	return o.TransmitTimeout
}

// explain asks why peer was lost. Once ctx ends nobody wants to know.
func (o Options) explain(ctx context.Context, peer motion.Peer) string {
	if o.Explain == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, explainLimit)
	defer cancel()
	return o.Explain(ctx, peer)
}
