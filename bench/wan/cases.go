//go:build linux

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/internal/link"
)

// The link of all cases, but for what they change.
const (
	rate      = 1_000_000_000 // bits per second
	queueTime = 100 * time.Millisecond

	storeReceiveBuffer = 32 << 20 // most that the store's TCP receives ahead

	stockHostBuffer = 212_992 // net.core.wmem_max of most hosts
	nearBound       = 1.35    // of all cases on the short link
)

// roundTrips are the links of the table: a long one, for which the cases have
// their bounds, and a short one.
var roundTrips = []time.Duration{200 * time.Millisecond, 20 * time.Millisecond}

// A yardstick is what a median is compared with.
type yardstick int

const (
	theLimit yardstick = iota // of the link
	thePlain                  // median of the same case without TLS
	netHTTP                   // median of net/http's pool
)

// A bench is one case on one link.
type bench struct {
	Name       string
	Before     []burst       // pushed before the idle time, one after another
	Measured   burst         // what is timed, after the idle time
	RTT        time.Duration // of the link
	Loss       float64       // of the link
	SendBuffer int64         // most that TCP's autotuning gives: tcp_wmem's third
	HostBuffer int64         // most that a process may ask for: wmem_max
	NoBBR      bool          // the host does not allow it
	TLS        bool
	Fresh      bool // a daemon that was just started and has warmed its connections
	Complete   bool // the store's own time for CompleteMultipartUpload is taken off
	Full       bool // not in the quick run

	Bound float64 // the median is at most so many times; 0: it is told and not judged
	Of    yardstick
}

// A burst is files of one size that are pushed at once.
type burst struct {
	Files int
	Size  int64 // bytes
}

var (
	single = burst{1, 18_000_000}
	twenty = burst{20, 18_000_000}
	many   = burst{200, 1_000_000}
	large  = burst{1, 1 << 30}
)

// longCases are the cases on the long link, without TLS.
var longCases = []bench{
	{Name: "single", Before: []burst{single, single}, Measured: single, Bound: 1.15},
	{Name: "single-after-burst", Before: []burst{single, single, twenty}, Measured: single, Bound: 2.2},
	{Name: "single-after-bursts-only", Before: []burst{twenty}, Measured: single},
	{Name: "single-4M", Before: []burst{single, single}, Measured: single, Bound: 2.2, SendBuffer: 4 << 20, HostBuffer: 4 << 20},
	{Name: "single-stock", Before: []burst{single, single}, Measured: single, Bound: 3.2, SendBuffer: 4 << 20},
	{Name: "burst", Before: []burst{twenty}, Measured: twenty, Bound: 1.25},
	{Name: "first-burst", Measured: twenty, Fresh: true, Bound: 1.35},
	{Name: "large", Before: []burst{single, single}, Measured: large, Complete: true, Bound: 1.25},
	{Name: "many", Before: []burst{many}, Measured: many, Bound: 1.6},
	{Name: "burst-lossy", Before: []burst{twenty}, Measured: twenty, Loss: 0.001, Bound: 1.8},
}

// inQuick are the cases of the quick run beside those of the long link without
// TLS that have a bound of their own.
var inQuick = []string{"200ms/single-tls", "200ms/single-nobbr", "20ms/single", "20ms/burst"}

// netHTTPInQuick are those of them in which net/http takes part too: the whole
// run has to be quick.
var netHTTPInQuick = []string{"200ms/single", "200ms/burst", "200ms/single-nobbr", "20ms/single"}

// withNetHTTP reports whether net/http takes part in the full run of a case.
// That has to end too: those that say little of net/http, which remembers
// nothing and sends each file whole, are without it.
func (b bench) withNetHTTP() bool {
	inBoth := b.Name == "single" || b.Name == "burst"
	onLong := b.RTT == roundTrips[0] && b.Measured != large && !strings.HasPrefix(b.Name, "single-after-")
	return b.Of == netHTTP || b.Of == theLimit && (inBoth || onLong)
}

// allCases returns the table, in the order in which it is printed.
func allCases() []bench {
	var all []bench
	for _, rtt := range roundTrips {
		var plain, overTLS, noBBR []bench
		for _, b := range longCases {
			b.RTT = rtt
			if rtt != roundTrips[0] && b.Bound > 0 {
				b.Bound = nearBound
			}
			if b.SendBuffer == 0 {
				b.SendBuffer = 64 << 20
			}
			if b.HostBuffer == 0 {
				b.HostBuffer = stockHostBuffer
			}
			plain = append(plain, b)
			if b.Name == "single" || b.Name == "burst" {
				refused := b
				refused.Name, refused.NoBBR, refused.Bound, refused.Of = b.Name+"-nobbr", true, 1, netHTTP
				noBBR = append(noBBR, refused)
			}
			if b.Bound > 0 {
				b.Name, b.TLS, b.Bound, b.Of = b.Name+"-tls", true, 1.1, thePlain
				overTLS = append(overTLS, b)
			}
		}
		all = append(all, plain...)
		all = append(all, overTLS...)
		all = append(all, noBBR...)
	}
	for i := range all {
		b := &all[i]
		main := b.RTT == roundTrips[0] && b.Of == theLimit && b.Bound > 0
		b.Full = !main && !slices.Contains(inQuick, b.id())
	}
	return all
}

// id names the case in the table, and for -run.
func (b bench) id() string {
	return fmt.Sprintf("%v/%s", b.RTT, b.Name)
}

// plainID is the id of the same case without TLS.
func (b bench) plainID() string {
	return b.id()[:len(b.id())-len("-tls")]
}

// limit is the time that no push can beat: the last byte of the files has to
// be sent, and the answer to it comes a round trip later.
func (b bench) limit() time.Duration {
	return limit(b.RTT, b.Measured)
}

func limit(rtt time.Duration, b burst) time.Duration {
	return rtt + time.Duration(float64(b.Files)*float64(b.Size)*8/rate*float64(time.Second))
}

// shape is the link of the case.
func (b bench) shape() link.Shape {
	return link.Shape{RTT: b.RTT, Rate: rate, Queue: queueTime, Loss: b.Loss, Seed: 1}
}

// host is what the case wants of the host's global variables.
func (b bench) host() hostVariables {
	allowed := "reno cubic bbr"
	if b.NoBBR {
		allowed = "reno cubic"
	}
	return hostVariables{allowed: allowed, sendBuffer: strconv.FormatInt(b.HostBuffer, 10)}
}
