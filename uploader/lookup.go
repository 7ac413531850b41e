package uploader

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// lookUp asks for the object of a push that was cancelled after the store may
// have made it; cause is what the push failed with. If the store shows the
// file's bytes, the push is done. What it shows else is another object. If it
// shows nothing, or what cannot be compared, it is unclear; so it is if there is
// no object, but a completion may still be making it.
func (d *delivery) lookUp(cause error) (got outcome, err error, unclear bool) {
	head, err := d.head()
	switch {
	case answerOf(err).Status == http.StatusNotFound:
		return outcome{}, cause, d.unclear
	case err != nil:
		return outcome{}, errors.Join(cause, err), true
	case aws.ToInt64(head.ContentLength) != d.file.Size():
		return outcome{}, cause, false
	}
	if _, is := asFileError(cause); is {
		return outcome{}, cause, true
	}
	got, same, known := d.matches(head)
	if why := d.file.Check(d.up.stopped); why != nil { // it was compared with another file than was sent, or with none
		return outcome{}, why, true
	}
	if same {
		return got, nil, false
	}
	return outcome{}, cause, !known
}

// asFileError returns the failure if it is one of the file, with which nothing
// can be compared then.
func asFileError(err error) (*push.Error, bool) {
	known, is := errors.AsType[*push.Error](err)
	if !is {
		return nil, false
	}
	switch known.Code {
	case push.FileHangs, push.FileChanged, push.FileNotFound, push.FileUnreadable, push.FileNotRegular, push.FileNotAllowed, push.FileTooLarge, push.InvalidFile:
		return known, true
	}
	return nil, false
}

// asking is the operation that asks for an object.
const asking = "HeadObject"

// head asks for the object.
func (d *delivery) head() (head *s3.HeadObjectOutput, err error) {
	in := &s3.HeadObjectInput{Bucket: &d.dest.Bucket, Key: &d.dest.Key}
	if d.up.checksum != ChecksumMD5 {
		in.ChecksumMode = types.ChecksumModeEnabled
	}
	err = d.request(d.up.stopped, asking, single, question, func(ctx context.Context, _ *commitment) (err error) {
		head, err = d.up.client.HeadObject(ctx, in)
		return err
	})
	return head, err
}

// matches compares an object of the file's size with the file: by its checksum
// where the store gives one of the whole object, else by its ETag where that is
// made of MD5s. If they are the same, what is known of the object comes with it.
func (d *delivery) matches(head *s3.HeadObjectOutput) (got outcome, same, known bool) {
	etag := bareETag(aws.ToString(head.ETag))
	verified := &push.Verified{What: "object", Algorithm: "crc64nvme", By: byDaemon, Value: aws.ToString(wholeCRC(head.ChecksumCRC64NVME, head.ChecksumType))}
	wanted := withCRC
	if verified.Value == "" {
		verified.Algorithm, verified.Value = "md5", etag
		if isMD5OfParts(etag) {
			verified.What = "parts"
		}
		wanted |= withMD5
		if d.opaqueETag(head.ServerSideEncryption) || !isMD5(etag) && verified.What != "parts" {
			return outcome{}, false, false
		}
	}
	parts, err := d.readParts(wanted)
	if err != nil {
		return outcome{}, false, false
	}
	crc := combined(parts)
	if wanted&withMD5 != 0 {
		same = strings.EqualFold(etag, madeETag(parts))
	} else {
		same = verified.Value == crcText(crc)
	}
	got = newOutcome(head.ETag, head.VersionId, crc)
	got.verified = verified
	return got, same, true
}

// readParts reads the file as it would be sent.
func (d *delivery) readParts(wanted algorithms) ([]sentPart, error) {
	parts := make([]sentPart, d.up.plan.parts(d.file.Size()))
	size := d.up.plan.partSize(d.file.Size())
	for i := range parts {
		at := int64(i) * size
		content := io.NewSectionReader(d.section(d.up.stopped), at, min(size, d.file.Size()-at))
		parts[i].size = content.Size()
		if err := parts[i].ours.compute(content, wanted); err != nil {
			return nil, err
		}
		parts[i].etag = parts[i].ours.md5Hex()
	}
	return parts, nil
}

// madeETag is the ETag that S3 gives an object that was sent in these parts.
func madeETag(parts []sentPart) string {
	if len(parts) == 1 {
		return parts[0].etag
	}
	return joinedETag(parts)
}

const (
	// askAgain is between the questions about a cancelled push to a store that
	// does not answer.
	askAgain = 5 * time.Second
	// mostAsking is how many pushes may be asked about at once.
	mostAsking = 8
)

// ask finds out what has become of a push that was cancelled while it waited,
// and that an earlier attempt may have delivered. It goes on until the store
// answers, whatever the file does then, or the daemon stops; then the push stays
// in the journal.
func (u *Uploader) ask(e *entry, t *task, r *journal.Record) {
	res := result{err: errCancelled, unclear: true}
	for again := true; again; again = res.unclear && (noAnswer(res.err) || u.stopped.Err() != nil) {
		if !u.mayAsk() {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.leaveInJournalLocked(e)
			return
		}
		res = u.askOnce(r)
		<-u.asking
		if u.stopped.Err() != nil && res.unclear {
			continue // to its end: mayAsk says no
		}
		if res.unclear && noAnswer(res.err) {
			select {
			case <-time.After(askAgain):
			case <-u.leaving:
			}
		}
	}
	switch {
	case res.err == nil:
		u.finish(e, t, r, push.Done, res.got, nil)
	case res.unclear:
		u.finish(e, t, r, push.Failed, outcome{}, errMayBeThere(res.err))
	default:
		u.finish(e, t, r, push.Cancelled, outcome{}, errWasCancelled())
	}
}

// noAnswer reports whether a question failed so that it may be answered later.
// That the file could not be compared came after an answer.
func noAnswer(err error) bool {
	_, is := asFileError(err)
	return !is && transient(err)
}

// mayAsk waits for its turn to ask, and reports whether it came before the
// daemon began to stop.
func (u *Uploader) mayAsk() bool {
	select {
	case <-u.leaving:
		return false
	default:
	}
	select {
	case u.asking <- struct{}{}:
		return true
	case <-u.leaving:
		return false
	}
}

// askOnce asks for the object of a push. The file is needed only if there is
// one of its size.
func (u *Uploader) askOnce(r *journal.Record) result {
	dest, err := push.ParseDestination(r.Request.Destination)
	if err != nil {
		return result{err: err, unclear: true}
	}
	head, err := (&delivery{up: u, req: r.Request, dest: dest}).head()
	switch {
	case answerOf(err).Status == http.StatusNotFound:
		return result{err: errCancelled}
	case err != nil:
		return result{err: err, unclear: true}
	case aws.ToInt64(head.ContentLength) != r.Size:
		return result{err: errCancelled}
	}
	d, same, err := u.newDelivery(u.stopped, r, new(task))
	if err != nil { // there is nothing to compare with
		return result{err: err, unclear: true}
	}
	defer d.file.Close()
	if !same {
		return result{err: push.Errorf(push.FileChanged, "file %s changed", push.Quote(r.Request.File)), unclear: true}
	}
	var res result
	res.got, res.err, res.unclear = d.lookUp(errCancelled)
	return res
}

// errMayBeThere is the end of a cancelled push of which nobody knows what has
// become: the store did not say, or the file cannot be compared with what it has.
func errMayBeThere(cause error) *push.Error {
	if known, is := asFileError(cause); is {
		return &push.Error{Code: known.Code, Err: cause,
			Detail: "the push was cancelled after all of it may have been sent, and the store has an object of its size, which cannot be compared with the file: look there (" + known.Detail + ")"}
	}
	return &push.Error{Code: push.StoreUnreachable, Err: cause,
		Detail: "the push was cancelled after all of it had been sent, and whether the store has the object could not be found out: look there"}
}
