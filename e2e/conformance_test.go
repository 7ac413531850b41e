package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// What a push is, on every store and with every checksum: the object is read
// back byte for byte, and the receipt says how it was verified. At the end
// stands a table of what was found.
func TestConformance(t *testing.T) {
	sideBySide(t)
	cases, files := conformanceCases(t), carriedFiles(t)
	found := &findings{cells: map[[2]string][]finding{}}
	for _, s := range []*realStore{versity(), fakeStore(t), cephStore(t)} {
		if s == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			found.stores = append(found.stores, s.name)
			for _, mode := range modes {
				t.Run(mode, func(t *testing.T) {
					found.mode = mode
					testTable(t, s, mode, cases, found)
					testFlips(t, s, mode, files, found)
					testEncrypted(t, s, mode, files, found)
				})
			}
		})
	}
	t.Logf("what the daemon compared; by S3DAEMON_CHECKSUM, where that makes a difference:\n%s", found)
}

// testTable pushes all cases to one bucket.
func testTable(t *testing.T, s *realStore, mode string, cases []conformanceCase, found *findings) {
	d := startDaemon(t, s.env(s.url, mode)...)
	bucket := s.newBucket(t)
	var keys []string
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fields := map[string]any{"file": c.file, "destination": "s3://" + bucket + "/" + c.key}
			maps.Copy(fields, c.fields)
			a := d.pushJSON(t, fields)
			if s.cannotHold[c.key] {
				a.refused(t, http.StatusBadGateway, "store_refused")
				found.note(c.name, "refused by the store")
				return
			}
			r := a.done(t)
			keys = append(keys, s.listed(c.key))
			checkConformance(t, s, mode, bucket, c, r)
			if !t.Failed() {
				found.note(c.name, fmt.Sprintf("%s: %s", r.Verified.What, r.Verified.Algorithm))
			}
		})
	}
	// By an operation that has keys in its answer and not in its URL.
	slices.Sort(keys)
	if got := s.keys(t, bucket); !slices.Equal(got, keys) {
		t.Errorf("the store lists\n%q, want\n%q", got, keys)
	}
}

// checkConformance compares a receipt and an object with what a case must
// come to.
func checkConformance(t testing.TB, s *realStore, mode, bucket string, c conformanceCase, r receipt) {
	t.Helper()
	if err := compareObjectIn(s.client, bucket, c.key, c.file); err != nil {
		t.Error(err)
	}
	parts := partsOf(c.sums.size)
	if r.Size != c.sums.size || r.Parts != parts || r.Attempts != 1 || r.Bucket != bucket || r.Key != c.key {
		t.Errorf("the receipt is %+v, want %d bytes in %d parts at the first attempt", r, c.sums.size, parts)
	}
	if r.Checksum == nil || r.Checksum.Algorithm != "crc64nvme" || r.Checksum.Value != c.sums.crc64nvme {
		t.Errorf("the receipt has the checksum %+v, the file's CRC64NVME is %s", r.Checksum, c.sums.crc64nvme)
	}
	p := s.one(mode)
	if parts > 1 {
		p = s.parts(mode)
	}
	checkVerified(t, r, p, c.sums)
	checkHead(t, s, bucket, c, r)
}

// checkVerified compares what a receipt says of the proof.
func checkVerified(t testing.TB, r receipt, want proof, sums sums) {
	t.Helper()
	if r.Verified == nil {
		t.Error("the receipt does not say how it was verified")
		return
	}
	value := map[string]string{"crc64nvme": sums.crc64nvme, "md5": sums.etag, "sha256": sums.sha256}[want.algorithm]
	if got := (proof{r.Verified.What, r.Verified.Algorithm, r.Verified.By}); got != want || r.Verified.Value != value {
		t.Errorf("the receipt is verified by %+v %s, want %+v %s", got, r.Verified.Value, want, value)
	}
}

// checkHead compares what the store says of an object.
func checkHead(t testing.TB, s *realStore, bucket string, c conformanceCase, r receipt) {
	t.Helper()
	ctx := context.Background()
	head, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &c.key, ChecksumMode: types.ChecksumModeEnabled})
	if err != nil {
		t.Fatalf("head: %v", err)
	}
	if etag := strings.Trim(aws.ToString(head.ETag), `"`); r.ETag != etag || etag == "" {
		t.Errorf("the receipt has the ETag %q, the store %q", r.ETag, etag)
	}
	if n := aws.ToInt64(head.ContentLength); n != c.sums.size {
		t.Errorf("the object has %d bytes, want %d", n, c.sums.size)
	}
	if crc := aws.ToString(head.ChecksumCRC64NVME); crc != "" && crc != c.sums.crc64nvme {
		t.Errorf("the object has the CRC64NVME %s, want %s", crc, c.sums.crc64nvme)
	}
	if got := aws.ToString(head.ContentType); c.contentType != "" && got != c.contentType {
		t.Errorf("the object has the content type %q, want %q", got, c.contentType)
	}
	if class := head.StorageClass; class != "" && class != types.StorageClassStandard {
		t.Errorf("the object has the storage class %q", class)
	}
	if c.metadata != nil && !maps.Equal(head.Metadata, c.metadata) {
		t.Errorf("the object has the metadata %v, want %v", head.Metadata, c.metadata)
	}
	if c.tags == nil {
		return
	}
	want := c.tags
	if s.keepsLess && r.Parts > 1 {
		want = nil
	}
	out, err := s.client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: &bucket, Key: &c.key})
	if err != nil {
		t.Fatalf("get the tags: %v", err)
	}
	got := map[string]string{}
	for _, tag := range out.TagSet {
		got[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the object has the tags %v, want %v", got, want)
	}
}

// testFlips changes a bit on the wire, once and always.
func testFlips(t *testing.T, s *realStore, mode string, files []carriedFile, found *findings) {
	p := newFaultProxyTo(t, s.dial)
	d := startDaemon(t, s.env(p.url(), mode, "S3DAEMON_ATTEMPTS=2")...)
	bucket := s.newBucket(t)
	flip := fault{what: flips, at: anywhere}
	for _, f := range files {
		key := "flipped in " + f.operation
		t.Run(key+", once", func(t *testing.T) {
			before := p.count(f.operation, flips)
			p.follow(only(f.operation, once(flip)))
			r := d.push(t, f.file, "s3://"+bucket+"/"+key).done(t)
			p.follow(passAll)
			if n := p.count(f.operation, flips) - before; n != 1 {
				t.Errorf("%d bits were flipped, want 1: %s", n, p.summary())
			}
			if r.Attempts != 2 {
				t.Errorf("it took %d attempts, want 2", r.Attempts)
			}
			if err := compareObjectIn(s.client, bucket, key, f.file); err != nil {
				t.Error(err)
			}
			proof := s.one(mode)
			if r.Parts > 1 {
				proof = s.parts(mode)
			}
			checkVerified(t, r, proof, f.sums)
			if !t.Failed() {
				found.note(key+", once", "caught, sent again: "+r.Verified.Algorithm)
			}
		})
		t.Run(key+", always", func(t *testing.T) {
			d.push(t, f.older, "s3://"+bucket+"/"+key).done(t)
			p.follow(only(f.operation, always(flip)))
			d.push(t, f.file, "s3://"+bucket+"/"+key).refused(t, http.StatusBadGateway, "checksum_mismatch")
			p.follow(passAll)
			// One that the store takes and that shows only in its answer is there
			// in place of the older one, and nobody has called it done.
			word := "caught, the older object stays"
			if f.operation == "PutObject" && s.checksOnlyMD5 && mode == "crc64nvme" {
				word = "caught, after the store had taken it"
				if got, err := digestObjectIn(s.client, bucket, key); err != nil || got.size != f.sums.size {
					t.Errorf("the store has %d bytes (%v): does it check CRC64NVME now?", got.size, err)
				}
			} else if err := compareObjectIn(s.client, bucket, key, f.older); err != nil {
				t.Error(err)
			}
			if !t.Failed() {
				found.note(key+", always", word)
			}
		})
	}
	for _, x := range p.requests("") {
		if x.method == "DELETE" && x.op != "AbortMultipartUpload" {
			t.Errorf("the daemon has deleted something: %s %s", x.method, x.path)
		}
	}
}

// testEncrypted has objects encrypted by a key. Their ETags may be anything, so
// where the store tells no checksum, it must have checked what it was sent.
func testEncrypted(t *testing.T, s *realStore, mode string, files []carriedFile, found *findings) {
	if s.kmsKey == "" {
		for _, f := range files {
			found.note("encrypted by KMS, "+f.what, "not tried: there is no key")
		}
		return
	}
	d := startDaemon(t, s.env(s.url, mode, "S3DAEMON_ATTEMPTS=2")...)
	bucket := s.newBucket(t)
	for _, f := range files {
		what, name := f.what, "encrypted by KMS, "+f.what
		t.Run(name, func(t *testing.T) {
			a := d.pushJSON(t, map[string]any{
				"file": f.file, "destination": "s3://" + bucket + "/" + what,
				"server_side_encryption": "aws:kms", "sse_kms_key_id": s.kmsKey,
			})
			if mode == "crc64nvme" {
				a.refused(t, http.StatusBadGateway, "not_verified")
				found.note(name, "not_verified")
				return
			}
			r := a.done(t)
			want := proof{what, "md5", "store"}
			if mode == "sha256" {
				want.algorithm = "sha256"
			}
			checkVerified(t, r, want, f.sums)
			if err := compareObjectIn(s.client, bucket, what, f.file); err != nil {
				t.Error(err)
			}
			head, err := s.client.HeadObject(context.Background(), &s3.HeadObjectInput{Bucket: &bucket, Key: &what})
			if err != nil || head.ServerSideEncryption != types.ServerSideEncryptionAwsKms || aws.ToString(head.SSEKMSKeyId) != s.kmsKey {
				t.Errorf("the object is not encrypted as it was asked for: %+v, %v", head, err)
			}
			if !t.Failed() {
				found.note(name, fmt.Sprintf("%s: %s, by the store", what, r.Verified.Algorithm))
			}
		})
	}
}
