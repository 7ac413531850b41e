package uploader

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// TestCompletionThatIsNotAskedFor: a run that ends while the journal cannot take
// that an upload is about to be completed leaves one that was not.
func TestCompletionThatIsNotAskedFor(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 2*testPart)
	d := r.deliveryOf(t, path)
	d.forget()
	d.upload = d.newUpload()
	d.upload.ID = "u"
	stuck, free := make(chan struct{}), make(chan struct{})
	r.journal.Barrier(func() { // the writer calls it, and writes nothing meanwhile
		close(stuck)
		<-free
	})
	<-stuck
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCancelled)
	if _, err := d.CompleteMultipartUpload(ctx, new(s3.CompleteMultipartUploadInput)); err != errCancelled {
		t.Errorf("the run ended with %v", err)
	}
	close(free)
	left := r.recorded(t)
	if len(left) != 1 || !left[0].CompletedAt.IsZero() {
		t.Errorf("the journal has %+v", left)
	}
}
