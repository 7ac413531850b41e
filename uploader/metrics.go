package uploader

import (
	"errors"
	"math"
	"slices"
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
	resumed   prometheus.Counter
	late      prometheus.Counter
	deadline  time.Duration // 0: none
	duration  prometheus.Histogram
	retries   *prometheus.CounterVec
	requests  *prometheus.CounterVec
	requestIn *prometheus.HistogramVec

	mismatches *prometheus.CounterVec
	aborts     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, u *Uploader, limit int, deadline time.Duration) *metrics {
	m := &metrics{
		deadline: deadline,
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "s3daemon_pushes_late_total", Help: "Pushes that were done later than S3DAEMON_DEADLINE after their acceptance."}),
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "s3daemon_pushes_total", Help: "Pushes by outcome: done, failed or cancelled after they were accepted; refused."}, []string{"outcome"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "s3daemon_push_failures_total", Help: "Pushes that failed or were refused, by the code of their problem."}, []string{"code"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "s3daemon_push_bytes_total", Help: "Bytes of the files whose pushes are done."}),
		resumed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "s3daemon_resumed_bytes_total", Help: "Bytes of parts that an earlier run had delivered, so that they were not sent again."}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "s3daemon_push_duration_seconds", Help: "Time from the acceptance of a push until it was done.",
			Buckets: boundsWith(deadline)}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "s3daemon_push_retries_total", Help: "Attempts at a push that failed and are followed by another, by reason."}, []string{"reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "s3daemon_s3_requests_total", Help: "Requests to the store, each attempt counted, by operation and status class (2xx to 5xx; error where there was no answer)."}, []string{"operation", "status"}),
		requestIn: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "s3daemon_s3_request_duration_seconds", Help: "Time that a request to the store held its slot.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 120}}, []string{"operation"}),
	}
	m.mismatches = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "s3daemon_checksum_mismatches_total", Help: "Requests after which the store had, or said that it had got, other bytes than were read, by operation."}, []string{"operation"})
	m.aborts = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "s3daemon_multipart_aborts_total", Help: "Multipart uploads that were aborted, since no push went on with them."})
	for _, operation := range []string{"PutObject", "UploadPart", completing} {
		m.mismatches.WithLabelValues(operation)
	}
	reg.MustRegister(m.mismatches, m.aborts, m.pushes, m.failures, m.bytes, m.resumed, m.late, m.duration, m.retries, m.requests, m.requestIn, queueCollector{u},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_queue_limit", Help: "How many pushes may be queued or running before further ones are refused."},
			func() float64 { return float64(u.queueLimit) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_slots", Help: "Size of the pool: requests to the store that may be under way at once."},
			func() float64 { return float64(limit) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_slots_in_use", Help: "Requests to the store that are under way."},
			func() float64 { return float64(u.slots.inUse()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_deadline_seconds", Help: "Time after its acceptance from which on a push that is done counts as late; 0: none does."},
			deadline.Seconds),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_pool_warm", Help: "1 if a warm-up has ended well since the connections were made, else 0."},
			func() float64 { return map[bool]float64{true: 1}[u.warm.Load()] }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_credentials_usable", Help: "0 while there are no credentials, or the store refuses them, else 1."},
			func() float64 {
				_, _, problem := u.credentials.state()
				return map[bool]float64{true: 1}[problem == nil]
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "s3daemon_credentials_expire_timestamp_seconds", Help: "When the credentials end that are in use, as Unix time; +Inf where nothing is known of an end."},
			func() float64 {
				_, end, _ := u.credentials.state()
				if end.IsZero() {
					return math.Inf(1)
				}
				return float64(end.Unix())
			}),
	)
	for _, outcome := range []string{"done", "failed", "cancelled", "refused"} {
		m.pushes.WithLabelValues(outcome)
	}
	for _, reason := range []string{"connection", "stalled", "5xx", "slow_down"} {
		m.retries.WithLabelValues(reason)
	}
	for _, code := range endings {
		m.failures.WithLabelValues(string(code))
	}
	for _, operation := range []string{"PutObject", "UploadPart", "CreateMultipartUpload", completing} {
		for _, status := range []string{"2xx", "4xx", "5xx", "error"} {
			m.requests.WithLabelValues(operation, status)
		}
	}
	return m
}

// endings are the codes with which pushes end, beside those of requests that are
// wrong. They are counted from 0 on, as all that an alert looks at: Prometheus
// takes no notice of a counter that begins at 1.
var endings = []push.Code{
	push.FileNotFound, push.FileUnreadable, push.FileNotRegular, push.FileChanged, push.FileHangs, push.FileNotAllowed, push.DestinationNotAllowed,
	push.StoreRefused, push.StoreUnreachable, push.ChecksumMismatch, push.NotVerified, push.NoCredentials, push.Exists, push.ConditionUnsupported,
	push.Superseded, push.WasCancelled, push.QueueFull, push.JournalUnavailable, push.Internal,
}

// boundsWith returns the bounds between the times that pushes take, of which the
// deadline is one, so that what was late is a number and no estimate.
func boundsWith(deadline time.Duration) []float64 {
	bounds := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 3, 5, 7, 10, 20, 60, 300, 1800}
	at, found := slices.BinarySearch(bounds, deadline.Seconds())
	if found || deadline == 0 {
		return bounds
	}
	return slices.Insert(bounds, at, deadline.Seconds())
}

// isLate reports whether a push was done later than it should have been.
func (m *metrics) isLate(r push.Receipt) bool {
	return r.State == push.Done && m.deadline > 0 && r.Seconds > m.deadline.Seconds()
}

// ended counts an accepted push that has ended; failure is nil if it is done.
func (m *metrics) ended(r push.Receipt, failure *push.Error) {
	if failure != nil {
		m.pushes.WithLabelValues(string(r.State)).Inc()
		m.failures.WithLabelValues(string(failure.Code)).Inc()
		return
	}
	m.pushes.WithLabelValues("done").Inc()
	m.bytes.Add(float64(r.Size))
	m.duration.Observe(r.Seconds)
	if m.isLate(r) {
		m.late.Inc()
	}
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
	if err == nil || errors.As(err, &known) && (known.Code == push.ChecksumMismatch || known.Code == push.NotVerified) {
		return "2xx"
	}
	if status := answerOf(err).Status; status >= 100 {
		return strconv.Itoa(status/100) + "xx"
	}
	return "error"
}

// queueCollector tells what is in the queue, at the moment that somebody asks.
type queueCollector struct{ u *Uploader }

var (
	depthDesc = prometheus.NewDesc("s3daemon_queue_depth", "Accepted pushes that have not ended, by state: queued, running.", []string{"state"}, nil)
	ageDesc   = prometheus.NewDesc("s3daemon_queue_oldest_seconds", "Age of the oldest push that has not ended, by state; 0 where there is none.", []string{"state"}, nil)
	retryDesc = prometheus.NewDesc("s3daemon_queue_retrying", "Pushes of those that are queued that wait for another attempt.", nil, nil)
	reachDesc = prometheus.NewDesc("s3daemon_store_reachable", "0 while the store cannot be reached, else 1.", nil, nil)
	trialDesc = prometheus.NewDesc("s3daemon_buckets_on_trial", "Buckets that failed several times in a row and are tried once a second.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c queueCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{depthDesc, ageDesc, retryDesc, reachDesc, trialDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c queueCollector) Collect(out chan<- prometheus.Metric) {
	d := c.u.depths()
	reachable := 1.0
	if _, _, down := c.u.endpoint.down(); down {
		reachable = 0
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, l := range []struct {
		state push.State
		line  push.Line
	}{{push.Queued, d.queued}, {push.Running, d.running}} {
		gauge(depthDesc, float64(l.line.Pushes), string(l.state))
		gauge(ageDesc, l.line.Oldest.Seconds(), string(l.state))
	}
	gauge(retryDesc, float64(d.retrying))
	gauge(trialDesc, float64(d.onTrial))
	gauge(reachDesc, reachable)
}
