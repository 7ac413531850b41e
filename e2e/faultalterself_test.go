package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// smallUpload is a multipart upload of one part, made by an SDK client.
type smallUpload struct {
	client      *s3.Client
	bucket, key string
	body        []byte
	id          string
	part        *s3.UploadPartOutput
}

func (u *smallUpload) create(ctx context.Context) error {
	out, err := u.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &u.bucket, Key: &u.key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme, ChecksumType: types.ChecksumTypeFullObject,
	})
	if err == nil {
		u.id = aws.ToString(out.UploadId)
	}
	return err
}

func (u *smallUpload) sendPart(ctx context.Context) (err error) {
	u.part, err = u.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &u.bucket, Key: &u.key, UploadId: &u.id, PartNumber: aws.Int32(1),
		Body: bytes.NewReader(u.body), ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme,
	})
	return err
}

func (u *smallUpload) complete(ctx context.Context) (*s3.CompleteMultipartUploadOutput, error) {
	return u.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.bucket, Key: &u.key, UploadId: &u.id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{
			PartNumber: aws.Int32(1), ETag: u.part.ETag, ChecksumCRC64NVME: u.part.ChecksumCRC64NVME,
		}}},
	})
}

// run makes the whole upload and returns what its completion came to.
func (u *smallUpload) run(t *testing.T, ctx context.Context) (*s3.CompleteMultipartUploadOutput, error) {
	t.Helper()
	if err := errors.Join(u.create(ctx), u.sendPart(ctx)); err != nil {
		t.Fatal(err)
	}
	return u.complete(ctx)
}

// What a fault makes of an answer, and only of the answer.
func TestFaultAlters(t *testing.T) {
	p := newFaultProxy(t)
	client := faultClient(t, p)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	bucket, body := newBucket(t), []byte(strings.Repeat("body ", 100))
	put := func(key string) *s3.PutObjectOutput {
		t.Helper()
		out, err := client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &bucket, Key: &key, Body: bytes.NewReader(body), ChecksumAlgorithm: types.ChecksumAlgorithmCrc64nvme,
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	upload := func(key string) *smallUpload {
		return &smallUpload{client: client, bucket: bucket, key: key, body: body}
	}
	check := func(what, got, want string, same bool) {
		t.Helper()
		if (got == want) != same || len(got) != len(want) {
			t.Errorf("%s is %q, and without the fault %q", what, got, want)
		}
	}
	etag, crc := aws.ToString(put("key").ETag), aws.ToString(put("key").ChecksumCRC64NVME)
	u := upload("large")
	whole, err := u.run(t, ctx)
	if err != nil || aws.ToString(whole.ChecksumCRC64NVME) != crc {
		t.Fatalf("without a fault: %+v, %v; want the checksum %s", whole, err, crc)
	}

	p.follow(always(fault{what: wrongETag}))
	out := put("key")
	check("the ETag of an object", aws.ToString(out.ETag), etag, false)
	check("its checksum", aws.ToString(out.ChecksumCRC64NVME), crc, true)
	wrong := upload("large")
	if err := errors.Join(wrong.create(ctx), wrong.sendPart(ctx)); err != nil {
		t.Fatal(err)
	}
	check("the ETag of a part", aws.ToString(wrong.part.ETag), aws.ToString(u.part.ETag), false)
	wrong.part = u.part // the right one: the store would refuse the other
	completed, err := wrong.complete(ctx)
	if err != nil {
		t.Fatal(err)
	}
	check("the ETag of a completion", aws.ToString(completed.ETag), aws.ToString(whole.ETag), false)

	p.follow(always(fault{what: wrongChecksum}))
	out = put("key")
	check("the ETag of an object", aws.ToString(out.ETag), etag, true)
	check("its checksum", aws.ToString(out.ChecksumCRC64NVME), crc, false)
	wrong = upload("large")
	if err := errors.Join(wrong.create(ctx), wrong.sendPart(ctx)); err != nil {
		t.Fatal(err)
	}
	check("the checksum of a part", aws.ToString(wrong.part.ChecksumCRC64NVME), crc, false)
	wrong.part = u.part
	if completed, err = wrong.complete(ctx); err != nil {
		t.Fatal(err)
	}
	check("the checksum of a completion", aws.ToString(completed.ChecksumCRC64NVME), crc, false)
	if n := p.count("", wrongChecksum); n != 3 {
		t.Errorf("wrong checksums were counted %d times, want 3: %s", n, p.summary())
	}

	p.follow(only("CreateMultipartUpload PutObject", always(fault{what: truncatesXML})))
	if err := upload("large").create(ctx); err == nil {
		t.Error("truncated XML was taken")
	}
	put("key")
	if n := p.count("", truncatesXML); n != 1 {
		t.Errorf("truncated XML was counted %d times, want 1: %s", n, p.summary())
	}
	abortUploads(t, bucket, "large")
}

// A completion that is answered with 200, and an error inside.
func TestFaultErrorIn200(t *testing.T) {
	p := newFaultProxy(t)
	client := faultClient(t, p)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	bucket := newBucket(t)
	for key, f := range map[string]fault{"stored": errorIn200.afterStoring(), "absent": errorIn200.instead()} {
		p.follow(only("CompleteMultipartUpload", once(f)))
		u := &smallUpload{client: client, bucket: bucket, key: key, body: []byte("body")}
		_, err := u.run(t, ctx)
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() != "InternalError" {
			t.Errorf("%s: the completion came to %v", key, err)
		}
		if _, there := listObjects(t, bucket)[key]; there != (key == "stored") {
			t.Errorf("%s: the store has it: %v", key, there)
		}
	}
	abortUploads(t, bucket, "absent")
}

// A store that does not know checksums in headers takes a wrong one, and
// neither repeats one nor keeps it.
func TestFaultUnaware(t *testing.T) {
	p := newFaultProxy(t)
	client := faultClient(t, p, unsigned)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	bucket, key, body := newBucket(t), "a key + %41/ü", []byte("body")
	put := func() (*s3.PutObjectOutput, error) {
		return client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &bucket, Key: &key, Body: bytes.NewReader(body), ChecksumCRC64NVME: aws.String(wrongCRC),
		})
	}
	if _, err := put(); err == nil {
		t.Fatal("a wrong checksum was taken without the fault")
	}
	p.follow(unaware(passAll))
	out, err := put()
	if err != nil {
		t.Fatal(err)
	}
	if out.ChecksumCRC64NVME != nil || out.ChecksumType != "" {
		t.Errorf("the answer has a checksum: %+v", out)
	}
	u := &smallUpload{client: client, bucket: bucket, key: key, body: body}
	completed, err := u.run(t, ctx)
	if err != nil {
		t.Fatal(err)
	}
	if u.part.ChecksumCRC64NVME != nil || completed.ChecksumCRC64NVME != nil {
		t.Errorf("the answers have checksums: %+v, %+v", u.part, completed)
	}
	if got, err := digestObject(bucket, key); err != nil || got.size != int64(len(body)) {
		t.Errorf("the store has %d bytes, %v", got.size, err)
	}
	head, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled})
	if err != nil || head.ChecksumCRC64NVME != nil {
		t.Errorf("asked for it: %+v, %v", head, err)
	}
	// Together with another fault.
	p.follow(unaware(once(fault{what: flips})))
	if _, err := put(); err != nil {
		t.Errorf("a flipped bit: %v", err)
	}
	if want, err := digestOf(bytes.NewReader(body)); err != nil {
		t.Error(err)
	} else if got, err := digestObject(bucket, key); err != nil || got == want {
		t.Errorf("no bit was flipped: %v", err)
	}
}

// What happens to connections, seen from a connection.
func TestFaultConnections(t *testing.T) {
	p := newFaultProxy(t)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	client := faultClient(t, p)
	// It may come upon a connection before it has noticed that it is gone.
	put := func() {
		t.Helper()
		waitFor(t, "an object to be stored", func() bool {
			status, _ := putThrough(client, bucket, "key", file)
			return status == 200
		})
	}
	open := func() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.conns) }
	begin := time.Now()
	for n, f := range []fault{{}, {what: closes}, {what: resetsIdle}} {
		p.follow(once(f))
		put()
		if f.what != passes {
			waitFor(t, "the connection to end", func() bool { return open() == 0 })
		}
		put()
		if made := len(p.connectsSince(begin)); made != n+1 {
			t.Errorf("%v: %d connections were made, want %d", f.what, made, n+1)
		}
	}

	// On demand: those that are idle, and no other.
	g := newGate()
	p.follow(once(fault{before: g.wait}))
	held := make(chan int)
	go func() {
		status, _ := putThrough(faultClient(t, p), bucket, "held", file)
		held <- status
	}()
	waitFor(t, "a request to be held", func() bool { return p.nowHeld() == 1 })
	if n := p.resetIdle(nil); n != 1 {
		t.Errorf("%d connections were reset, want the idle one", n)
	}
	g.open()
	if status := <-held; status != 200 {
		t.Errorf("a connection that was not idle: %d", status)
	}
	put()
}

// Answers that come slowly or break off, and a body that nobody reads, byte for
// byte.
func TestFaultBytes(t *testing.T) {
	p := newFaultProxy(t)
	bucket := newBucket(t)
	// An answer with a body: that there is no such upload.
	ask := fmt.Sprintf("POST /%s/key?uploadId=none HTTP/1.1\r\nHost: store\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", bucket)
	answerTo := func(f fault, request string) (pieces int, text string) {
		t.Helper()
		p.follow(once(f))
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, request)
		for buf := make([]byte, 4096); ; pieces++ {
			n, err := conn.Read(buf)
			text += string(buf[:n])
			if err != nil {
				return pieces, text
			}
		}
	}
	bodyOf := func(text string) string { _, body, _ := strings.Cut(text, "\r\n\r\n"); return body }
	_, want := answerTo(fault{}, ask)
	if !strings.HasPrefix(want, "HTTP/1.1 4") || len(bodyOf(want)) == 0 {
		t.Fatalf("the store answered %q", want)
	}
	pieces, text := answerTo(fault{what: trickles, pace: 100 * time.Microsecond}, ask)
	if len(bodyOf(text)) != len(bodyOf(want)) || pieces < len(text)/2 {
		t.Errorf("%d pieces of the answer: %q, want %q", pieces, text, want)
	}
	fewer, text := answerTo(fault{what: tricklesBody, pace: 100 * time.Microsecond}, ask)
	if len(bodyOf(text)) != len(bodyOf(want)) || fewer < len(bodyOf(want))/2 || fewer > pieces {
		t.Errorf("%d pieces of the answer: %q, want %q", fewer, text, want)
	}
	if _, text = answerTo(fault{what: cutAnswer, at: offset(20)}, ask); text != want[:20] {
		t.Errorf("of %q there is %q, want 20 bytes", want, text)
	}
	// A body that breaks off: the store sees a part of it, and makes nothing.
	answerTo(fault{what: resetMidway, at: offset(3)}, fmt.Sprintf("PUT /%s/key HTTP/1.1\r\nHost: store\r\nContent-Length: 5\r\n\r\nhello", bucket))
	if n := p.count("PutObject", resetMidway); n != 1 {
		t.Errorf("the cut was counted %d times: %s", n, p.summary())
	}

	// A body that nobody reads: more than the connection itself can hold.
	p.follow(once(fault{what: stopsReading, at: offset(0)}))
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /%s/key HTTP/1.1\r\nHost: store\r\nContent-Length: %d\r\n\r\n", bucket, 1<<30)
	waitFor(t, "the request to be held", func() bool { return p.nowHeld() == 1 })
	conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	n, err := io.Copy(conn, io.LimitReader(zeros{}, 1<<30))
	if err == nil || n > 100<<20 {
		t.Errorf("%d bytes were taken, %v", n, err)
	}
}

// zeros is an endless stream.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
