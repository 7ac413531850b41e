package uploader

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
)

// metrics is what the uploader counts. The README lists every name; a test
// compares the two.
type metrics struct {
	pushes    *prometheus.CounterVec
	failures  *prometheus.CounterVec
	bytes     prometheus.Counter
	duration  prometheus.Histogram
	waiting   prometheus.Gauge
	inFlight  prometheus.Gauge
	requests  *prometheus.CounterVec
	requestIn *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, slots *slots, limit int) *metrics {
	m := &metrics{
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "s3daemon_pushes_total", Help: "Pushes by outcome: done; failed after they were accepted; refused."}, []string{"outcome"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "s3daemon_push_failures_total", Help: "Pushes that failed or were refused, by the code of their problem."}, []string{"code"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "s3daemon_push_bytes_total", Help: "Bytes of the files whose pushes are done."}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "s3daemon_push_duration_seconds", Help: "Time from the acceptance of a push until it was done.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 5, 7, 10, 20, 60, 300, 1800}}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "s3daemon_pushes_waiting", Help: "Accepted pushes that wait for their turn."}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "s3daemon_pushes_in_flight", Help: "Pushes that are being delivered."}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "s3daemon_s3_requests_total", Help: "Requests to the store, each attempt counted, by operation and status class (2xx to 5xx; error where there was no answer)."}, []string{"operation", "status"}),
		requestIn: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "s3daemon_s3_request_duration_seconds", Help: "Time that a request to the store held its slot.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120}}, []string{"operation"}),
	}
	reg.MustRegister(m.pushes, m.failures, m.bytes, m.duration, m.waiting, m.inFlight, m.requests, m.requestIn,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_slots", Help: "Size of the pool: requests to the store that may be under way at once."},
			func() float64 { return float64(limit) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_slots_in_use", Help: "Requests to the store that are under way."},
			func() float64 { return float64(slots.inUse()) }),
	)
	for _, outcome := range []string{"done", "failed", "refused"} {
		m.pushes.WithLabelValues(outcome)
	}
	return m
}

// ended counts an accepted push; failure is nil if it is done.
func (m *metrics) ended(r push.Receipt, failure *push.Error) {
	if failure != nil {
		m.pushes.WithLabelValues("failed").Inc()
		m.failures.WithLabelValues(string(failure.Code)).Inc()
		return
	}
	m.pushes.WithLabelValues("done").Inc()
	m.bytes.Add(float64(r.Size))
	m.duration.Observe(r.Seconds)
}

// refused counts a request that was not accepted.
func (m *metrics) refused(code push.Code) {
	m.pushes.WithLabelValues("refused").Inc()
	m.failures.WithLabelValues(string(code)).Inc()
}

// request counts one attempt of a request that took d.
func (m *metrics) request(operation string, err error, d time.Duration) {
	m.requests.WithLabelValues(operation, statusClass(err)).Inc()
	m.requestIn.WithLabelValues(operation).Observe(d.Seconds())
}

// statusClass returns 2xx to 5xx, or error where the store did not answer.
func statusClass(err error) string {
	var known *push.Error
	if err == nil || errors.As(err, &known) && known.Code == push.ChecksumMismatch {
		return "2xx"
	}
	if status := answerOf(err).Status; status >= 100 {
		return strconv.Itoa(status/100) + "xx"
	}
	return "error"
}
