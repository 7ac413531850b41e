package uploader

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/secret"
)

// largestPut is the most that S3 takes in one request, in bytes.
const largestPut = 5 << 30

// anyObject is the If-None-Match of a request that may not replace an object.
const anyObject = "*"

// condition is the If-None-Match of a request that makes the object; nil where
// it may replace one.
func (d *delivery) condition() *string {
	if !d.req.CreateOnly() {
		return nil
	}
	return aws.String(anyObject)
}

// create sends the file so that it replaces no object. If there is one already,
// its bytes decide: the file's were sent by an earlier try of ours, or by
// somebody who has done the same as we are to do.
func (d *delivery) create(ctx context.Context) (outcome, error) {
	if d.up.plan.parts(d.file.Size()) > 1 { // it is worth a question
		got, err := d.meet(ctx, nil)
		if !errors.Is(err, errVanished) {
			return got, err
		}
	}
	send, err := d.wayToCreate(ctx)
	if err != nil {
		return outcome{}, err
	}
	got, err := send(ctx)
	switch {
	case err == nil || ctx.Err() != nil && !conditionFailed(err):
	case conditionFailed(err):
		return d.meet(ctx, err)
	case mendedAtOnce(err): // stores that refuse before they have read all may close the connection on their answer
		if got, met := d.meet(ctx, err); met == nil || isExists(met) {
			return got, met
		}
	case mismatched(err) && d.stored:
		return outcome{}, errMadeWrong(err)
	}
	return got, err
}

// wayToCreate decides how the file is sent, before a byte of it is.
//
//	the store ignores the condition on PutObject  not at all
//	the file goes as one request                  so
//	it goes in parts, and the store heeds the     so
//	condition on CompleteMultipartUpload
//	it ignores it, or that is not known           as one request, up to 5 GiB; else not at all
func (d *delivery) wayToCreate(ctx context.Context) (func(context.Context) (outcome, error), error) {
	put, err := d.heeds(ctx, putting)
	switch {
	case err != nil:
		return nil, err
	case put == ignored:
		return nil, push.Errorf(push.ConditionUnsupported,
			"the store at %s ignores the condition that no object is replaced (If-None-Match on PutObject): push without overwrite=false, if another object at %s may be lost", d.up.name, d.dest)
	case d.up.plan.parts(d.file.Size()) == 1:
		return d.whole, nil
	}
	complete, err := d.heeds(ctx, completing)
	switch {
	case err != nil:
		return nil, err
	case complete == heeded:
		return d.inParts, nil
	case d.file.Size() > largestPut:
		return nil, push.Errorf(push.ConditionUnsupported,
			"the file has %d bytes, and without replacing an object the store at %s makes one of 5 GiB at most: that it heeds the condition for a file in parts (If-None-Match on CompleteMultipartUpload) has not been shown; push without overwrite=false, if another object at %s may be lost",
			d.file.Size(), d.up.name, d.dest)
	}
	return d.whole, nil
}

// conditionFailed reports whether the store refused to replace an object.
func conditionFailed(err error) bool { return answerOf(err).Status == http.StatusPreconditionFailed }

// errVanished is what a push failed with that an object was in the way of, which
// is not there any more: the next attempt may make its own.
var errVanished = errors.New("the store does not show the object that it would not replace")

// errMade marks an object of a push that may not replace it, though it is wrong.
var errMade = errors.New("the object was made, and is not replaced")

// meet asks for the object that is in the way; cause is the failure that told of
// it, nil where none did. Without an error it has the file's bytes; with
// errVanished it is not there.
func (d *delivery) meet(ctx context.Context, cause error) (outcome, error) {
	var s sight
	var err error
	if cause == nil {
		s, err = d.lookFirst(ctx, nil)
	} else {
		s, err = d.look(nil)
	}
	switch {
	case err == nil && s.is == ourObject:
		s.got.parts = partsByETag(s.got.etag)
		return s.got, nil
	case err == nil && s.is == noObject:
		if cause == nil {
			return outcome{}, errVanished
		}
		return outcome{}, fmt.Errorf("%w: %w", errVanished, cause)
	case err == nil:
		return outcome{}, d.errExists(s, cause)
	case transient(err), cause == nil && ctx.Err() != nil:
		return outcome{}, err
	case cause == nil: // it may be there or not, the request will tell
		return outcome{}, errVanished
	}
	return outcome{}, d.errExists(sight{is: someObject}, cause)
}

// partsByETag returns how many requests the object was sent in, 0 if its ETag does
// not tell.
func partsByETag(etag string) int {
	if isMD5(etag) {
		return 1
	}
	_, number, _ := strings.Cut(etag, "-")
	n, err := strconv.Atoi(number)
	if err != nil || !isMD5OfParts(etag) {
		return 0
	}
	return n
}

// errExists is the end of a push that would have had to replace an object.
func (d *delivery) errExists(s sight, cause error) *push.Error {
	e := &push.Error{Code: push.Exists, Err: cause}
	if answer := answerOf(cause); answer.Status != 0 {
		e.Store = &answer
	}
	what, h := "another object", s.head
	note := ""
	switch {
	case h == nil:
		what = "an object that the daemon may not look at (HeadObject)"
	case s.is == someObject:
		what = "an object that cannot be compared with the file"
	case s.differs.algorithm == "ETag" && isMD5OfParts(s.differs.stored):
		what = "an object of the same size and another ETag, by which it has other bytes, or the same sent in other parts,"
	}
	if s.is == someObject && (d.maybe || d.maybeBefore) {
		note = "; it may be this push's own, since an earlier attempt ended without an answer"
	}
	if h != nil {
		what += fmt.Sprintf(" (%d bytes, ETag %s", aws.ToInt64(h.ContentLength), push.Quote(secret.Blot(bareETag(aws.ToString(h.ETag)))))
		if h.LastModified != nil {
			what += ", of " + h.LastModified.UTC().Format(time.RFC3339)
		}
		what += ")"
	}
	e.Detail = fmt.Sprintf("there is %s at %s already, and the push is not to overwrite it: push to another key, or without overwrite=false%s", what, d.dest, note)
	return e
}

func isExists(err error) bool {
	known, is := errors.AsType[*push.Error](err)
	return is && known.Code == push.Exists
}

// errMadeWrong is the end of a push whose object has other bytes than were read.
// Another attempt would find it in the way.
func errMadeWrong(err error) *push.Error {
	known, is := errors.AsType[*push.Error](err)
	if !is {
		known = &push.Error{Code: push.ChecksumMismatch, Detail: push.OneLine(rootText(err))}
	}
	return &push.Error{Code: known.Code, Store: known.Store, Err: fmt.Errorf("%w: %w", errMade, err),
		Detail: "the object was made, and is wrong; the push may not overwrite it, so remove it and push again: " + known.Detail}
}
