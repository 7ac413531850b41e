package listen

import "github.com/prometheus/client_golang/prometheus"

// metrics is what a door counts. The README lists every name; a test compares
// the two.
type metrics struct {
	refused           prometheus.Counter // requests that were one too many
	crowded, notTaken prometheus.Counter // connections that were dropped
}

func newMetrics(registry prometheus.Registerer, d *Door) *metrics {
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "s3daemon_connections_dropped_total", Help: "Connections of callers that the daemon closed, by reason: crowded, the one that had waited longest made room for another; answer_not_taken, its caller did not read what he had asked for."}, []string{"reason"})
	m := &metrics{
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "s3daemon_callers_refused_total", Help: "Requests that were refused since S3DAEMON_MAX_CALLERS others were under way."}),
		crowded:  dropped.WithLabelValues("crowded"),
		notTaken: dropped.WithLabelValues("answer_not_taken"),
	}
	if registry == nil {
		return m
	}
	gauge := func(state string, value func() int) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_callers", Help: "Connections of callers, by state: serving, a request that was read whole is under way; waiting, for the caller.",
			ConstLabels: prometheus.Labels{"state": state}}, func() float64 { return float64(value()) })
	}
	registry.MustRegister(m.refused, dropped,
		gauge("serving", func() int { serving, _ := d.counts(); return serving }),
		gauge("waiting", func() int { _, waiting := d.counts(); return waiting }))
	return m
}
