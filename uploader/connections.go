package uploader

import (
	"cmp"
	"log/slog"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/transport"
)

// connectionCollector tells what is known of the connections to the store. Each
// of them is looked at once for all that is told of it, when somebody asks.
type connectionCollector struct {
	wire  *transport.Transport
	tcp   transport.TCP
	limit *transport.Bandwidth // nil: none
}

// reading is a metric that is read off a T.
type reading[T any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(T) float64
}

func (r reading[T]) tell(out chan<- prometheus.Metric, from T, labels ...string) {
	out <- prometheus.MustNewConstMetric(r.desc, r.kind, r.of(from), labels...)
}

// ofConnection has the label connection: a place in the pool, so that there are
// never more values of it than places.
func ofConnection[T any](name, help string, of func(T) float64) reading[T] {
	return reading[T]{prometheus.NewDesc("s3daemon_connection_"+name, help, []string{"connection"}, nil), prometheus.GaugeValue, of}
}

func counterOf[T any](name, help string, of func(T) float64) reading[T] {
	return reading[T]{prometheus.NewDesc("s3daemon_"+name, help, nil, nil), prometheus.CounterValue, of}
}

// What is told of each connection: by the pool, and by the kernel where it tells.
var (
	byPool = []reading[transport.Connection]{
		ofConnection("age_seconds", "How long ago the connection was made.", func(c transport.Connection) float64 { return c.Age.Seconds() }),
		ofConnection("requests", "Requests that the connection has carried.", func(c transport.Connection) float64 { return float64(c.Requests) }),
	}
	byKernel = []reading[transport.Info]{
		ofConnection("rtt_seconds", "Round trip time, smoothed.", func(i transport.Info) float64 { return i.RTT.Seconds() }),
		ofConnection("window_bytes", "Congestion window.", func(i transport.Info) float64 { return float64(i.Window) }),
		ofConnection("delivery_bytes_per_second", "Rate at which the store acknowledged, as it was measured last.", func(i transport.Info) float64 { return i.Delivered }),
		ofConnection("rate_bytes_per_second", "Rate that the connection is known to carry, and begins with after a pause.", func(i transport.Info) float64 { return i.Rate }),
		ofConnection("retransmits", "Segments that were sent again.", func(i transport.Info) float64 { return float64(i.Retransmits) }),
		ofConnection("buffer_limited_seconds", "Time in which the send buffer was what held the connection up.", func(i transport.Info) float64 { return i.BufferLimited.Seconds() }),
		ofConnection("receiver_limited_seconds", "Time in which the store's window was what held the connection up.", func(i transport.Info) float64 { return i.ReceiverLimited.Seconds() }),
	}
)

// inTotal is told of all connections there ever were.
var inTotal = []reading[transport.Totals]{
	counterOf("pool_dials_total", "Connections that were begun.", func(t transport.Totals) float64 { return float64(t.Dials) }),
	counterOf("pool_dial_failures_total", "Connections that could not be made.", func(t transport.Totals) float64 { return float64(t.DialFailures) }),
	counterOf("pool_lost_total", "Connections that the other end closed while they were idle.", func(t transport.Totals) float64 { return float64(t.Lost) }),
	counterOf("pool_refreshed_total", "Questions that were asked so that an idle connection stays open.", func(t transport.Totals) float64 { return float64(t.Refreshed) }),
	counterOf("pool_reused_total", "Requests that went out on a connection that was open already.", func(t transport.Totals) float64 { return float64(t.Reused) }),
	counterOf("tcp_acknowledged_bytes_total", "Bytes that the store has acknowledged, of headers, failed attempts and TLS too.", func(t transport.Totals) float64 { return float64(t.AckedBytes) }),
	counterOf("tcp_retransmits_total", "Segments that were sent again.", func(t transport.Totals) float64 { return float64(t.Retransmits) }),
	counterOf("tcp_buffer_limited_seconds_total", "Time in which the send buffer was what held a connection up.", func(t transport.Totals) float64 { return t.BufferLimited.Seconds() }),
	counterOf("tcp_receiver_limited_seconds_total", "Time in which the store's window was what held a connection up.", func(t transport.Totals) float64 { return t.ReceiverLimited.Seconds() }),
}

var (
	poolDesc  = prometheus.NewDesc("s3daemon_pool_connections", "Connections that are open, by state: busy with a request, idle.", []string{"state"}, nil)
	tcpDesc   = prometheus.NewDesc("s3daemon_tcp_congestion_info", "1, with the congestion control that is at work.", []string{"algorithm"}, nil)
	limitDesc = prometheus.NewDesc("s3daemon_bandwidth_limit_bytes_per_second", "Most that is sent to the store, over all connections; 0 where there is no limit.", nil, nil)
)

// Describe implements prometheus.Collector.
func (connectionCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{poolDesc, tcpDesc, limitDesc} {
		out <- d
	}
	for _, r := range byPool {
		out <- r.desc
	}
	for _, r := range byKernel {
		out <- r.desc
	}
	for _, r := range inTotal {
		out <- r.desc
	}
}

// Collect implements prometheus.Collector.
func (c connectionCollector) Collect(out chan<- prometheus.Metric) {
	var busy, idle float64
	open, totals := c.wire.Look()
	for _, conn := range open {
		if conn.Busy {
			busy++
		} else {
			idle++
		}
		number := strconv.Itoa(conn.Number)
		for _, r := range byPool {
			r.tell(out, conn, number)
		}
		if conn.Info.Known {
			for _, r := range byKernel {
				r.tell(out, conn.Info, number)
			}
		}
	}
	limit := 0.0
	if c.limit != nil {
		limit = float64(c.limit.Get()) / 8
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(poolDesc, busy, "busy")
	gauge(poolDesc, idle, "idle")
	gauge(tcpDesc, 1, congestionOf(c.tcp))
	gauge(limitDesc, limit)
	for _, r := range inTotal {
		r.tell(out, totals)
	}
}

// logTCP says once how it is sent to the store, and, where the host refuses what
// was asked for, how to have that.
func logTCP(log *slog.Logger, wanted string, tcp transport.TCP) {
	attrs := []any{"congestion", congestionOf(tcp), "send_buffer_bytes", tcp.SendBuffer, "forced", tcp.Forced}
	switch {
	case tcp.Hint == "":
		log.Info("TCP to the store", attrs...)
	case cmp.Or(wanted, transport.Auto) == transport.Auto:
		log.Info("TCP to the store; with bbr, which the hint gives, files would arrive earlier over a long link", append(attrs, "hint", tcp.Hint)...)
	default:
		log.Warn("TCP to the store goes without the congestion control of S3DAEMON_TCP_CONGESTION, which the host refuses", append(attrs, "wanted", wanted, "hint", tcp.Hint)...)
	}
}

// congestionOf names the congestion control that is at work.
func congestionOf(tcp transport.TCP) string { return cmp.Or(tcp.Algorithm, "unknown") }
