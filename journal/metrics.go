package journal

import "github.com/prometheus/client_golang/prometheus"

// metrics is what a journal counts. The README lists every name; a test
// compares the two.
type metrics struct {
	commit   prometheus.Histogram
	failures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, j *Journal) *metrics {
	m := &metrics{
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "s3daemon_journal_commit_duration_seconds", Help: "Time that a transaction of the journal took, with its syncs.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "s3daemon_journal_write_failures_total", Help: "Transactions of the journal that could not be written, for example because the disk was full."}),
	}
	if reg == nil {
		return m
	}
	moved := 0.0
	if j.movedAside != "" {
		moved = 1
	}
	reg.MustRegister(m.commit, m.failures,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_journal_size_bytes", Help: "Length of the journal's file."},
			func() float64 { return float64(j.Size()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_journal_moved_aside", Help: "1 if the journal could not be read at the start and was moved aside."},
			func() float64 { return moved }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_multipart_uploads", Help: "Multipart uploads in the journal: begun, and neither completed nor aborted as far as is known."},
			func() float64 { return float64(j.countUploads()) }),
	)
	return m
}
