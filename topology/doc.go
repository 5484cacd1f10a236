// Package topology knows which instances a cluster has and where their
// interconnect proxies listen.
//
// [Instance] is a row of gp_segment_configuration; [ReadFile] and [WriteFile]
// keep the rows of a cluster in one text file. [AddressList] is the value of
// the parameter gp_interconnect_proxy_addresses: parsed, formatted, derived
// from the instances, checked against them, and compared with another.
//
// Nothing here resolves a name or opens a connection, and all values may be
// used by several goroutines as long as none changes them.
package topology
