package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Codes a first packet carries in place of a protocol version.
const (
	cancelRequestCode = 1234<<16 | 5678
	sslRequestCode    = 1234<<16 | 5679
	gssRequestCode    = 1234<<16 | 5680
)

const (
	// maxStartupPacket is PostgreSQL's bound for the first packet, in bytes.
	maxStartupPacket = 10000
	// protocol30 is the newest protocol spoken here.
	protocol30 = 3 << 16
	// maxNameLen is the longest name of a role or database, in bytes. Longer
	// ones are cut, as PostgreSQL does.
	maxNameLen = 63
	// protocolOption begins the names of parameters that are extensions of
	// the protocol, of which there are none.
	protocolOption = "_pq_."
)

// startup is what a client asks for in its startup message.
type startup struct {
	user, database string
	replication    Replication
	params         map[string]string
	options        []Option // of the "options" parameter
	optionsErr     error    // reported only to those who may log in
	settings       []Option // the parameters that are settings, as they came
	unrecognized   []string // protocol extensions not spoken here
	minor          uint16
	tls            *tls.Config // what the connection is encrypted with, if it is
}

// firstPacket reads one packet without a type byte: length, then body.
func firstPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:])) - 4
	if n < 4 || n > maxStartupPacket {
		return nil, fatal(codeProtocolViolation, "invalid length of startup packet")
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return body, err
}

// readStartup answers encryption and cancel requests until the startup
// message has come. The connection it returns is the encrypted one if
// encryption was agreed on. Nothing is read past the startup message.
func (a *Authenticator) readStartup(ctx context.Context, conn net.Conn) (net.Conn, *startup, error) {
	var sslDone, gssDone bool
	var cfg *tls.Config
	for {
		body, err := firstPacket(conn)
		if err != nil {
			return conn, nil, err
		}
		code := binary.BigEndian.Uint32(body)
		switch {
		case code == cancelRequestCode:
			// Longer keys belong to a newer protocol than is spoken here.
			if len(body) == 12 && a.cfg.Cancel != nil {
				a.cfg.Cancel(binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:]))
			}
			return conn, nil, ErrCancelRequest
		case code == sslRequestCode && !sslDone:
			sslDone = true
			conn, cfg, err = a.answerSSL(ctx, conn)
			gssDone = gssDone || cfg != nil
		case code == gssRequestCode && !gssDone:
			gssDone = true
			_, err = conn.Write([]byte{'N'})
		default:
			s, err := parseStartup(body)
			if err != nil {
				return conn, nil, err
			}
			s.tls = cfg
			return conn, s, s.negotiate(conn)
		}
		if err != nil {
			return conn, nil, err
		}
	}
}

// answerSSL encrypts the connection if there is something to do it with, and
// returns with what. Unix sockets are never encrypted.
func (a *Authenticator) answerSSL(ctx context.Context, conn net.Conn) (net.Conn, *tls.Config, error) {
	var cfg *tls.Config
	if _, tcp := conn.RemoteAddr().(*net.TCPAddr); tcp && a.cfg.TLS != nil {
		cfg = a.cfg.TLS()
	}
	if cfg == nil {
		_, err := conn.Write([]byte{'N'})
		return conn, nil, err
	}
	if _, err := conn.Write([]byte{'S'}); err != nil {
		return conn, nil, err
	}
	// Bytes sent ahead of the answer are still in the socket, so they can
	// only be taken for part of the handshake, and fail it.
	enc := tls.Server(conn, cfg)
	if err := enc.HandshakeContext(ctx); err != nil {
		return conn, nil, fmt.Errorf("could not accept SSL connection: %w", err)
	}
	return enc, cfg, nil
}

// parseStartup reads the body of a startup message.
func parseStartup(body []byte) (*startup, error) {
	version := binary.BigEndian.Uint32(body)
	if version>>16 != 3 {
		return nil, fatal(codeFeatureNotSupported,
			"unsupported frontend protocol %d.%d: server supports 3.0 to 3.0", version>>16, version&0xffff)
	}
	s := &startup{minor: uint16(version), params: map[string]string{}}
	rest := body[4:]
	var options string
	for {
		name, more, ok := cutString(rest)
		if !ok {
			return nil, badLayout()
		}
		if name == "" {
			if len(more) != 0 {
				return nil, badLayout()
			}
			break
		}
		value, more, ok := cutString(more)
		if !ok {
			return nil, badLayout()
		}
		rest = more
		s.params[name] = value
		switch {
		case name == "user":
			s.user = value
		case name == "database":
			s.database = value
		case name == "options":
			options = value
		case name == "replication":
			if s.replication, ok = parseReplication(value); !ok {
				return nil, fatal(codeInvalidParameter,
					`invalid value for parameter "replication": "%s"`, value).
					hint(`Valid values are: "false", 0, "true", 1, "database".`)
			}
		case strings.HasPrefix(name, protocolOption):
			s.unrecognized = append(s.unrecognized, name)
		default:
			s.settings = append(s.settings, Option{Name: name, Value: value})
		}
	}
	if s.user == "" {
		return nil, fatal(codeInvalidAuthorization, "no PostgreSQL user name specified in startup packet")
	}
	if s.database == "" {
		s.database = s.user
	}
	s.user = s.user[:min(len(s.user), maxNameLen)]
	s.database = s.database[:min(len(s.database), maxNameLen)]
	s.options, s.optionsErr = ParseOptions(options)
	return s, nil
}

func badLayout() *Rejection {
	return fatal(codeProtocolViolation, "invalid startup packet layout: expected terminator as last byte")
}

func (r *Rejection) hint(text string) *Rejection {
	r.Hint = text
	return r
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	before, after, ok := bytes.Cut(b, []byte{0})
	return string(before), after, ok
}

// Replication says whether and which replication a client asks for.
type Replication uint8

// Kinds of connection.
const (
	NoReplication       Replication = iota // an ordinary session
	PhysicalReplication                    // replication=true
	LogicalReplication                     // replication=database
)

func parseReplication(v string) (Replication, bool) {
	if v == "database" {
		return LogicalReplication, true
	}
	v = strings.ToLower(v)
	for _, w := range []struct {
		word  string
		least int
		mode  Replication
	}{
		{"true", 1, PhysicalReplication}, {"yes", 1, PhysicalReplication},
		{"on", 2, PhysicalReplication}, {"1", 1, PhysicalReplication},
		{"false", 1, NoReplication}, {"no", 1, NoReplication},
		{"off", 2, NoReplication}, {"0", 1, NoReplication},
	} {
		if len(v) >= w.least && strings.HasPrefix(w.word, v) {
			return w.mode, true
		}
	}
	return NoReplication, false
}

// negotiate tells a client of a newer minor protocol, or one that wants
// protocol extensions, what it can have.
func (s *startup) negotiate(w io.Writer) error {
	if s.minor == 0 && len(s.unrecognized) == 0 {
		return nil
	}
	return send(w, &pgproto3.NegotiateProtocolVersion{
		NewestMinorProtocol: protocol30,
		UnrecognizedOptions: s.unrecognized,
	})
}

// send writes messages in one piece.
func send(w io.Writer, msgs ...pgproto3.BackendMessage) error {
	var buf []byte
	for _, m := range msgs {
		var err error
		if buf, err = m.Encode(buf); err != nil {
			return err
		}
	}
	_, err := w.Write(buf)
	return err
}

// readResponse reads the client's answer to an authentication request, of at
// most limit bytes.
func readResponse(r io.Reader, limit int) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	switch head[0] {
	case 'p':
	case 'X':
		return nil, io.EOF
	default:
		return nil, fatal(codeProtocolViolation, "expected password response, got message type %d", head[0])
	}
	n := int64(binary.BigEndian.Uint32(head[1:])) - 4
	if n < 0 || n > int64(limit) {
		return nil, fatal(codeProtocolViolation, "invalid message length")
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return body, err
}
