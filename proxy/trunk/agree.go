package trunk

import "github.com/trunkline-db/trunkline/icwire"

// Agreement between two Trunkline proxies, invisible to Greenplum's: the
// dialler puts an offer into the session and command fields of PEER_HELLO,
// which Greenplum leaves 0 and does not look at. A Greenplum acceptor echoes
// them; a Trunkline acceptor answers with another word in the session field.
//
//	session  offerWord in PEER_HELLO, acceptWord in PEER_HELLO_ACK
//	command  version (low 16 bits), features (high 16 bits)
//
// Both sides use the lower version and the features both have. Version 1: the
// receiver grants bytes (package logical), a packet may be as long as its len
// field can say, and there are PING, PONG and FREE packets (package icwire).
// The features are FeatureLost.
const (
	offerWord  int32 = 0x4b4e5254 // "TRNK"
	acceptWord int32 = 0x4b434154 // "TACK"

	version         = 1
	features uint32 = FeatureLost
)

// FeatureLost: there are LOST packets.
const FeatureLost = 1

// Agreement is what two proxies have found out about each other.
type Agreement struct {
	// Trunkline is true when the peer is one too.
	Trunkline bool
	Version   uint16
	Features  uint16
}

// Offer puts our offer into a PEER_HELLO.
func Offer(hello icwire.Header) icwire.Header {
	hello.Session, hello.Command = offerWord, features<<16|version
	return hello
}

// Accept reads the offer in the PEER_HELLO we got and puts our answer into ack,
// the PEER_HELLO_ACK to it. Without an offer ack stays as it is.
func Accept(hello, ack icwire.Header) (icwire.Header, Agreement) {
	if hello.Session != offerWord {
		return ack, Agreement{}
	}
	ack.Session, ack.Command = acceptWord, features<<16|version
	return ack, agree(hello.Command)
}

// Agreed reads the answer to our offer in the PEER_HELLO_ACK we got.
func Agreed(ack icwire.Header) Agreement {
	if ack.Session != acceptWord {
		return Agreement{}
	}
	return agree(ack.Command)
}

func agree(theirs uint32) Agreement {
	return Agreement{
		Trunkline: true,
		Version:   min(uint16(theirs), version),
		Features:  uint16(theirs>>16) & uint16(features),
	}
}
