package uploader

import (
	"errors"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

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
	}
	return d.compareWith(head, cause)
}

// compareWith ends lookUp with the store's answer.
func (d *delivery) compareWith(head *s3.HeadObjectOutput, cause error) (got outcome, err error, unclear bool) {
	if sizeDiffers(head, d.file.Size()) != nil {
		return outcome{}, cause, false
	}
	if _, is := asFileError(cause); is {
		return outcome{}, cause, true
	}
	s := d.compare(head, nil)
	if why := d.file.Check(d.up.stopped); why != nil { // it was compared with another file than was sent, or with none
		return outcome{}, why, true
	}
	if s.is == ourObject {
		return s.got, nil, false
	}
	return outcome{}, cause, s.is == someObject
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
	head, err := (&delivery{up: u, req: r.Request, dest: dest, traceparent: r.Traceparent}).head()
	switch {
	case answerOf(err).Status == http.StatusNotFound:
		return u.notMade(r)
	case err != nil:
		return result{err: err, unclear: true}
	case sizeDiffers(head, r.Size) != nil:
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
	res.got, res.err, res.unclear = d.compareWith(head, errCancelled)
	return res
}

// notMade is what it means for a cancelled push that there is no object: nothing, if
// a completion may still be making it.
func (u *Uploader) notMade(r *journal.Record) result {
	uploads, err := u.journal.Uploads(r.ID)
	if up := newestUpload(uploads, r.RetriedAt); err == nil && (up == nil || time.Since(up.CompletedAt) >= completionTakes) {
		return result{err: errCancelled}
	}
	return result{err: push.Errorf(push.StoreUnreachable, "its completion may still be under way"), unclear: true}
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
