package guc

import (
	"math"
	"slices"
	"strings"

	"github.com/trunkline-db/trunkline/topology"
)

// Names used elsewhere in the code.
const (
	InterconnectType   = "gp_interconnect_type"
	AddressType        = "gp_interconnect_address_type"
	ProxyAddresses     = "gp_interconnect_proxy_addresses"
	SetupTimeout       = "gp_interconnect_setup_timeout"
	TransmitTimeout    = "gp_interconnect_transmit_timeout"
	TCPListenerBacklog = "gp_interconnect_tcp_listener_backlog"
	AggressiveRetry    = "gp_enable_interconnect_aggressive_retry"
	MaxPacketSize      = "gp_max_packet_size"
	LogInterconnect    = "gp_log_interconnect"
	LogStats           = "gp_interconnect_log_stats"
	FlowControl        = "gp_interconnect_fc_method"
	QueueDepth         = "gp_interconnect_queue_depth"
	SndQueueDepth      = "gp_interconnect_snd_queue_depth"
	TimerPeriod        = "gp_interconnect_timer_period"
	TimerChecking      = "gp_interconnect_timer_checking_period"
	DefaultRTT         = "gp_interconnect_default_rtt"
	MinRTO             = "gp_interconnect_min_rto"
	MinRetries         = "gp_interconnect_min_retries_before_timeout"
	RetryInterval      = "gp_interconnect_debug_retry_interval"
	CacheFuture        = "gp_interconnect_cache_future_packets"
	FullCRC            = "gp_interconnect_full_crc"
	UDPBufferSize      = "gp_udp_bufsize_k"
	DropSegment        = "gp_udpic_dropseg"
	DropAcks           = "gp_udpic_dropacks_percent"
	DropData           = "gp_udpic_dropxmit_percent"
	FaultPercent       = "gp_udpic_fault_inject_percent"
	FaultBitmap        = "gp_udpic_fault_inject_bitmap"
	DisableIPv6        = "gp_udpic_network_disable_ipv6"
	Role               = "gp_role"
	SessionRole        = "gp_session_role"
	ContentID          = "gp_contentid"
	Dbid               = "gp_dbid"
)

const (
	categoryTuning    = "Greenplum Array Tuning"
	categoryGreenplum = "Greenplum Array"
	categoryPreset    = "Preset Options"
	categoryLogging   = "Reporting and Logging / What to Log"
	categoryPlanner   = "Query Tuning / Planner Method Configuration"
	categoryDeveloper = "Developer Options"
	categoryCompat    = "Version and Platform Compatibility / Previous PostgreSQL Versions"
	categoryStatement = "Client Connection Defaults / Statement Behavior"

	onlyUDP = "Used by the interconnect type udpifc only."
	intMax  = math.MaxInt32
)

var (
	sorted = table()
	byName = index()
)

// Motions lists the names of the parameters that an executor's motions obey,
// sorted. Those of the context Backend it is given when it starts, the others
// whenever they change. Do not change the list.
func Motions() []string { return motions }

var motions = motionNames()

func motionNames() (names []string) {
	for _, p := range slices.Concat(interconnect(), udp()) {
		if p.Name != ProxyAddresses {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

func index() map[string]*Parameter {
	m := make(map[string]*Parameter, len(sorted))
	for _, p := range sorted {
		m[p.Name] = p
	}
	return m
}

func number(name, unit string, low, high float64, def string, c Context, category, short string) *Parameter {
	return &Parameter{Name: name, Type: Int, Unit: unit, Min: low, Max: high, Default: def,
		Context: c, Category: category, Short: short}
}

func flag(name, def string, c Context, category, short string) *Parameter {
	return &Parameter{Name: name, Type: Bool, Default: def, Context: c, Category: category, Short: short}
}

func choice(name string, values []string, def string, c Context, category, short string) *Parameter {
	return &Parameter{Name: name, Type: Enum, Enum: values, Default: def, Context: c, Category: category, Short: short}
}

func hidden(p *Parameter) *Parameter {
	p.Hidden = true
	return p
}

func noSync(p *Parameter) *Parameter {
	p.NoSync = true
	return p
}

func long(text string, p *Parameter) *Parameter {
	p.Long = text
	return p
}

func table() []*Parameter {
	all := slices.Concat(interconnect(), udp(), cluster(), executor())
	slices.SortFunc(all, func(a, b *Parameter) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// interconnect lists what the types share, and what tcp and proxy have.
func interconnect() []*Parameter {
	addresses := hidden(&Parameter{
		NoSync: true,
		Name:   ProxyAddresses, Type: String, Context: Sighup, Category: categoryTuning,
		Short: "Sets the addresses and ports of the interconnect proxies of all instances.",
		Long:  "The format is dbid:content:host:port[,...], with an entry for the coordinator, its standby and each segment instance.",
		check: func(s string) error {
			_, err := topology.ParseAddresses(s)
			return err
		},
	})
	return []*Parameter{
		addresses,
		long("Each session keeps the type it has connected with.",
			choice(InterconnectType, []string{"udpifc", "tcp", "proxy"}, "udpifc", Backend, categoryTuning,
				"Sets the protocol used for inter-node communication.")),
		long("wildcard listens on every network interface, unicast only on the address in gp_segment_configuration.",
			choice(AddressType, []string{"wildcard", "unicast"}, "unicast", Backend, categoryTuning,
				"Sets the addresses on which the interconnect listens.")),
		long("0 waits for ever.", number(SetupTimeout, "s", 0, 7200, "7200", Userset, categoryTuning,
			"Sets how long the interconnect may take to connect at the start of a query.")),
		number(TransmitTimeout, "s", 1, 7200, "3600", Userset, categoryTuning,
			"Sets how long the interconnect waits for an answer before it gives a query up."),
		number(TCPListenerBacklog, "", 0, 65535, "256", Userset, categoryTuning,
			"Sets the listen backlog of the interconnect type tcp."),
		noSync(hidden(flag(AggressiveRetry, "on", Userset, categoryTuning,
			"Retries connections of the interconnect type tcp on a fast schedule when a listener's backlog is exceeded."))),
		number(MaxPacketSize, "", 512, 65507, "8192", Backend, categoryTuning,
			"Sets the greatest size in bytes of an interconnect packet, its header included."),
		hidden(choice(LogInterconnect, []string{"off", "terse", "verbose", "debug"}, "terse", Userset, categoryLogging,
			"Sets how much the interconnect writes to the log.")),
	}
}

func udp() []*Parameter {
	tuning := func(p *Parameter) *Parameter {
		p.Category, p.Context, p.Long = categoryTuning, Userset, onlyUDP
		return p
	}
	fault := func(name string, low, high float64, def string, short string) *Parameter {
		return hidden(long("Harms packets on purpose, to test the interconnect type udpifc.", number(name, "", low, high, def, Userset, categoryDeveloper, short)))
	}
	list := []*Parameter{
		tuning(choice(FlowControl, []string{"loss", "capacity"}, "loss", Userset, "",
			"Sets the flow control method.")),
		tuning(number(QueueDepth, "", 1, 4096, "4", Userset, "",
			"Sets the length in packets of the receive queue of each connection.")),
		tuning(number(SndQueueDepth, "", 1, 4096, "2", Userset, "",
			"Sets the number of packets each connection may buffer for sending.")),
		tuning(number(TimerPeriod, "ms", 1, 100, "5", Userset, "",
			"Sets the width of a slot of the retransmission timer.")),
		tuning(number(TimerChecking, "ms", 1, 100, "20", Userset, "",
			"Sets how often retransmissions are looked for.")),
		tuning(number(DefaultRTT, "ms", 1, 1000, "20", Userset, "",
			"Sets the round trip time assumed of a new connection.")),
		tuning(number(MinRTO, "ms", 1, 1000, "20", Userset, "",
			"Sets the least time before a packet is sent again.")),
		tuning(number(MinRetries, "", 1, 4096, "100", Userset, "",
			"Sets how often a packet is sent again at least before the query fails.")),
		tuning(number(RetryInterval, "", 1, 4096, "10", Userset, "",
			"Sets which retransmissions are logged: each one whose number is a multiple of it.")),
		noSync(tuning(flag(CacheFuture, "on", Userset, "",
			"Keeps packets that come before the receiver is set up."))),
		hidden(tuning(flag(FullCRC, "off", Userset, "",
			"Guards whole packets by a checksum."))),
		hidden(tuning(flag(LogStats, "off", Userset, "",
			"Writes statistics of each statement to the log."))),
		long(onlyUDP, number(UDPBufferSize, "kB", 0, 32768, "0", Backend, categoryTuning,
			"Sets the size of the socket buffers; 0 asks for 2 MB.")),
		fault(DropSegment, -2, intMax, "-2", "Sets the content id whose packets are lost, -2 for all."),
		fault(DropAcks, 0, 100, "0", "Sets the share of acknowledgements lost."),
		fault(DropData, 0, 100, "0", "Sets the share of data packets lost."),
		fault(FaultPercent, 0, 100, "0", "Sets the share of datagrams that something happens to."),
		fault(FaultBitmap, 0, intMax, "0", "Sets the kinds of faults, a bit each."),
		fault(DisableIPv6, 0, 1, "0", "Sets whether IPv6 is left alone."),
	}
	return list
}

// cluster lists what concerns instances and their connections.
func cluster() []*Parameter {
	// gp_session_role is Greenplum 6's name and stays for its PGOPTIONS.
	role := func(name string, c Context) *Parameter {
		return choice(name, []string{"utility", "dispatch", "execute"}, "dispatch", c, categoryGreenplum, "Sets the role of the session.")
	}
	keepalive := func(name, unit string, high float64, short string) *Parameter {
		return long("0 leaves it to the operating system.", number(name, unit, 0, high, "0", Postmaster, categoryTuning, short))
	}
	return []*Parameter{
		role(Role, Backend),
		role(SessionRole, Backend),
		number(ContentID, "", -1, 32767, "-1", Internal, categoryPreset, "Shows the content id of the instance."),
		number(Dbid, "", 0, 32767, "0", Internal, categoryPreset, "Shows the dbid of the instance."),
		number("gp_segment_connect_timeout", "s", 0, intMax, "180", Userset, categoryGreenplum,
			"Sets how long the coordinator waits for a segment to accept a connection; 0 waits for ever."),
		number("gp_connection_send_timeout", "s", 0, intMax, "3600", Sighup, categoryGreenplum,
			"Sets how long sending results to a client may take; 0 waits for ever."),
		keepalive("gp_dispatch_keepalives_idle", "s", 32767, "Sets the idle time before a keepalive on a dispatch connection."),
		keepalive("gp_dispatch_keepalives_interval", "s", 32767, "Sets the time between keepalives on a dispatch connection."),
		keepalive("gp_dispatch_keepalives_count", "", 127, "Sets how many keepalives may stay without answer."),
		number("gp_fts_probe_interval", "s", 10, 3600, "60", Sighup, categoryGreenplum,
			"Sets the time between two probes of the segments."),
		number("gp_fts_probe_timeout", "s", 0, 3600, "20", Sighup, categoryGreenplum,
			"Sets how long a probe may take."),
		number("gp_fts_probe_retries", "", 0, 100, "5", Sighup, categoryGreenplum,
			"Sets how often a failed probe is tried again."),
	}
}

// executor lists what concerns planning and gangs.
func executor() []*Parameter {
	return []*Parameter{
		number("gp_cached_segworkers_threshold", "", 1, intMax, "5", Userset, categoryGreenplum,
			"Sets how many gangs an idle session keeps."),
		number("gp_vmem_idle_resource_timeout", "ms", 0, intMax, "18000", Userset, categoryGreenplum,
			"Sets the time after which an idle session gives its gangs up; 0 keeps them."),
		number("gp_segments_for_planner", "", 0, intMax, "0", Userset, categoryPlanner,
			"Sets how many segments the planner assumes; 0 is the actual number."),
		number("gp_max_slices", "", 0, intMax, "0", Userset, categoryPlanner,
			"Sets how many slices a query may have; 0 is any number."),
		number("gp_motion_slice_noop", "", 0, intMax, "0", Userset, categoryDeveloper,
			"Makes motions drop rows, to measure."),
		flag("gp_enable_direct_dispatch", "on", Userset, categoryPlanner,
			"Sends a query whose rows lie on one segment to that segment only."),
		flag("gp_enable_motion_deadlock_sanity", "off", Userset, categoryDeveloper,
			"Checks plans for motions that could wait for each other."),
		flag("gp_enable_explain_allstat", "off", Userset, categoryDeveloper,
			"Makes EXPLAIN ANALYZE print the figures of every segment."),
		flag("gp_create_table_random_default_distribution", "off", Userset, categoryStatement,
			"Distributes tables without a DISTRIBUTED clause randomly."),
		hidden(flag("gp_use_legacy_hashops", "off", Userset, categoryCompat,
			"Makes new tables use the hash functions of Greenplum 5.")),
		{Name: "gp_motion_cost_per_row", Type: Real, Min: 0, Max: math.MaxFloat64, Default: "0", Context: Userset,
			Category: categoryPlanner, Short: "Sets the planner's estimate of the cost of moving a row; 0 is a built-in estimate."},
	}
}
