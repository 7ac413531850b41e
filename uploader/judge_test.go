package uploader

import (
	"io"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/lsst-dm/s3daemon/push"
)

// TestJudgeBucket has what each kind of failure does to a bucket on trial, and
// to one that is not. In particular a push that is given up because the bucket
// fails is no sign that the bucket is well.
func TestJudgeBucket(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, tc := range []struct {
		name     string
		err      error
		failures int            // of a bucket that had none
		due      *time.Duration // of the next trial, from now; nil: there is none any more
		hosts    bool           // each bucket is a host of its own
	}{
		{"overload", refusal(503, "SlowDown"), 1, aws.Duration(trialInterval), false},
		{"overload, to be left alone", refusalAfter(503, "SlowDown", "20"), 1, aws.Duration(20*time.Second + backoffBase), false},
		{"no answer", io.ErrUnexpectedEOF, 1, aws.Duration(trialInterval), false},
		{"wrong key", refusal(403, "InvalidAccessKeyId"), 1, aws.Duration(trialInterval), false},
		{"no connection", &downError{cause: errRefused}, 0, aws.Duration(time.Hour), false},
		{"no connection to the bucket's host", &downError{cause: errRefused}, 1, aws.Duration(trialInterval), true},
		{"no connection, in an outage", &downError{cause: errRefused, known: true}, 0, aws.Duration(time.Hour), true},
		{"a refusal", refusal(404, "NoSuchBucket"), 0, nil, false},
		{"bytes that it refuses", refusal(400, "BadDigest"), 0, nil, false},
		{"other bytes", push.Errorf(push.ChecksumMismatch, "m"), 0, nil, false},
		{"a file system that hangs", push.Errorf(push.FileHangs, "m"), 0, aws.Duration(0), false},
		{"a file that is being written", &push.Error{Code: push.FileChanged, Err: errUnsettled}, 0, aws.Duration(0), false},
		{"a file that is gone", push.Errorf(push.FileNotFound, "m"), 0, aws.Duration(0), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := &Uploader{queue: newQueue(1), endpoint: &endpoint{hosts: tc.hosts}}
			well := &bucket{name: "well"}
			u.judgeBucket(well, tc.err, now)
			if well.failures != tc.failures || well.trial != nil {
				t.Errorf("%d failures are counted, want %d", well.failures, tc.failures)
			}
			ill := &bucket{name: "ill", failures: failuresForTrial, trial: &trial{due: now.Add(time.Hour), tries: map[*entry]struct{}{}}}
			u.queue.onTrial[ill] = struct{}{}
			u.judgeBucket(ill, tc.err, now)
			switch {
			case (ill.trial == nil) != (tc.due == nil):
				t.Errorf("on trial: %v", ill.trial != nil)
			case ill.trial != nil && !ill.trial.due.Equal(now.Add(*tc.due)):
				t.Errorf("the next trial is due in %v, want %v", ill.trial.due.Sub(now), *tc.due)
			}
		})
	}
}
