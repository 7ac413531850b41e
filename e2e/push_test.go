package e2e

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/minio/crc64nvme"
)

// A file of up to oneRequest bytes is one PutObject; a larger one is cut into
// parts of partSize, or more where those would be more than 256.
const (
	oneRequest = 32 << 20
	partSize   = 8 << 20
)

// partsOf returns how many requests carry a file's bytes.
func partsOf(size int64) int {
	if size <= oneRequest {
		return 1
	}
	return int((size + partSizeOf(size) - 1) / partSizeOf(size))
}

// partSizeOf returns the size of each part but the last.
func partSizeOf(size int64) int64 {
	const mib, most = 1 << 20, 256
	return max(partSize, (size+most*mib-1)/(most*mib)*mib)
}

// The ways in which a request can be written.
func TestPushForms(t *testing.T) {
	d := startDaemon(t)
	bucket := newBucket(t)
	plain, spaced := makeFile(t, "plain", 10_000), makeFile(t, "with two  spaces.fits", 20_000)
	form := func(s string) func(testing.TB) answer {
		return func(t testing.TB) answer { return d.pushForm(t, s) }
	}
	tests := []struct {
		name, key, file string
		push            func(testing.TB) answer
	}{
		{"JSON", "json", plain, func(t testing.TB) answer {
			return d.pushJSON(t, map[string]any{"file": plain, "destination": "s3://" + bucket + "/json"})
		}},
		{"JSON with a charset", "charset", plain, func(t testing.TB) answer {
			body := fmt.Sprintf(`{"file": %q, "destination": "s3://%s/charset"}`, plain, bucket)
			return d.do(t, d.request(context.Background(), "POST", "/push", "application/json; charset=utf-8", body))
		}},
		// curl -d joins its arguments with '&' and escapes nothing.
		{"form as curl -d sends it", "raw", plain, form("file=" + plain + "&destination=s3://" + bucket + "/raw")},
		{"form as curl -d sends it, with spaces", "raw2", spaced, form("file=" + spaced + "&destination=s3://" + bucket + "/raw2")},
		{"form as curl --data-urlencode sends it", "dir/a+b c%20d", spaced,
			form("file=" + url.QueryEscape(spaced) + "&destination=" + url.QueryEscape("s3://"+bucket+"/dir/a+b c%20d"))},
		{"form in the other order", "other", plain, form("destination=s3://" + bucket + "/other&file=" + plain)},
		{"alias/bucket/key", "deep/er/key", plain, form("file=" + plain + "&destination=lfa/" + bucket + "/deep/er/key")},
		{"JSON with spaces", "JSON with spaces", spaced, func(t testing.TB) answer {
			return d.pushJSON(t, map[string]any{"file": spaced, "destination": "s3://" + bucket + "/JSON with spaces"})
		}},
		{"UTF-8", "größe/µ/文", plain, func(t testing.TB) answer {
			return d.pushJSON(t, map[string]any{"file": plain, "destination": "s3://" + bucket + "/größe/µ/文"})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.push(t).done(t)
			if r.File != tt.file || r.Bucket != bucket || r.Key != tt.key || r.Destination != "s3://"+bucket+"/"+tt.key {
				t.Errorf("the receipt is %+v, want the file %q and the key %q", r, tt.file, tt.key)
			}
			checkObject(t, bucket, tt.key, tt.file)
			checkReceipt(t, r, tt.file)
		})
	}
	if n := len(listObjects(t, bucket)); n != len(tests) {
		t.Errorf("the bucket has %d objects, want %d", n, len(tests))
	}
}

// The README's own command line, with the program it is written for.
func TestPushWithCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl here")
	}
	d := startDaemon(t)
	bucket := newBucket(t)
	file := makeFile(t, "a b.fits", 1000)
	cmd := exec.Command(curl, "-sS", "--noproxy", "*", "-d", "file="+file, "-d", "destination=s3://"+bucket+"/hosts", d.url+"/push")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"done"`) {
		t.Fatalf("curl: %v, and it printed %s", err, out)
	}
	checkObject(t, bucket, "hosts", file)
}

// Sizes about those where requests change their kind, or their number.
func TestPushSizes(t *testing.T) {
	d := startDaemon(t)
	bucket := newBucket(t)
	for _, size := range []int64{0, 1, 1000, 5 << 20, oneRequest - 1, oneRequest, oneRequest + 1, 5 * partSize, 5*partSize + 1, 100_000_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			file := makeFile(t, "file", size)
			key := fmt.Sprintf("sizes/%d", size)
			r := d.push(t, file, "s3://"+bucket+"/"+key).done(t)
			checkReceipt(t, r, file)
			checkObject(t, bucket, key, file)
		})
	}
}

// The same key again: the last one stands.
func TestPushOverwrites(t *testing.T) {
	d := startDaemon(t)
	bucket := newBucket(t)
	for _, size := range []int64{3000, 40_000_000, 0, 500} {
		file := makeFile(t, "file", size)
		checkReceipt(t, d.push(t, file, "s3://"+bucket+"/key").done(t), file)
		checkObject(t, bucket, "key", file)
	}
}

// checkReceipt compares a receipt with the file, and with what the store says
// of the object.
func checkReceipt(t testing.TB, r receipt, file string) {
	t.Helper()
	sums, err := sumsOf(file)
	if err != nil {
		t.Fatal(err)
	}
	head := headObject(t, r.Bucket, r.Key)
	parts := partsOf(sums.size)
	if r.Size != sums.size || r.Parts != parts || r.Attempts != 1 || r.VersionID != "" || r.Label != "" {
		t.Errorf("the receipt is %+v, want the size %d, %d parts, one attempt, no version and no label", r, sums.size, parts)
	}
	if etag := strings.Trim(aws.ToString(head.ETag), `"`); r.ETag != sums.etag || r.ETag != etag {
		t.Errorf("the receipt has the ETag %q, the store has %q, the file makes it %q", r.ETag, etag, sums.etag)
	}
	switch {
	case r.Checksum != nil:
		if r.Checksum.Algorithm != "crc64nvme" || r.Checksum.Value != sums.crc64nvme {
			t.Errorf("the receipt has the checksum %+v, the file's CRC64NVME is %s", *r.Checksum, sums.crc64nvme)
		}
	case parts == 1:
		t.Error("the receipt of a file of one part has no checksum")
	}
	if stored := aws.ToString(head.ChecksumCRC64NVME); stored != "" && stored != sums.crc64nvme {
		t.Errorf("the store has the CRC64NVME %s, the file's is %s", stored, sums.crc64nvme)
	} else if stored == "" && parts == 1 {
		t.Error("the store has no CRC64NVME of the object: none was sent")
	}
	if r.ID == "" || r.AcceptedAt.IsZero() || r.StartedAt.Before(r.AcceptedAt) || r.FinishedAt.Before(r.StartedAt) || r.Seconds <= 0 {
		t.Errorf("the receipt's times are out of order: %+v", r)
	}
	checkTiming(t, r)
	if d := r.FinishedAt.Sub(r.AcceptedAt).Seconds() - r.Seconds; d < -0.01 || d > 0.01 {
		t.Errorf("the receipt has %v seconds, and %v from acceptance to the end", r.Seconds, r.FinishedAt.Sub(r.AcceptedAt))
	}
}

// checkTiming holds the timing of a push that has ended to its seconds.
func checkTiming(t testing.TB, r receipt) {
	t.Helper()
	m := r.Timing
	if m == nil {
		t.Errorf("the receipt has no timing: %+v", r)
		return
	}
	sum := m.Queued + m.Connect + m.Send + m.Store
	if min(m.Queued, m.Connect, m.Send, m.Store) < 0 || sum < r.Seconds-1e-6 || sum > r.Seconds+1e-6 {
		t.Errorf("the timing %+v does not add up to %v seconds", *m, r.Seconds)
	}
}

// sums are the figures of a file that a store makes of an object, computed
// without any of the daemon's code.
type sums struct {
	size                    int64
	etag, sha256, crc64nvme string
}

func sumsOf(path string) (s sums, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s, err
	}
	each := partSizeOf(info.Size())
	if partsOf(info.Size()) == 1 {
		each = oneRequest
	}
	crc, md5s, sha256s, parts := crc64nvme.New(), []byte(nil), []byte(nil), 0
	for {
		inMD5, inSHA256 := md5.New(), sha256.New()
		n, err := io.Copy(io.MultiWriter(crc, inMD5, inSHA256), io.LimitReader(f, each))
		if err != nil {
			return s, err
		}
		if n == 0 && parts > 0 {
			break
		}
		s.size += n
		parts++
		md5s, sha256s = inMD5.Sum(md5s), inSHA256.Sum(sha256s)
		if n < each {
			break
		}
	}
	s.crc64nvme = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc.Sum64()))
	s.etag, s.sha256 = hex.EncodeToString(md5s), hex.EncodeToString(sha256s)
	if parts > 1 {
		s.etag = fmt.Sprintf("%x-%d", md5.Sum(md5s), parts)
		s.sha256 = fmt.Sprintf("%x-%d", sha256.Sum256(sha256s), parts)
	}
	return s, nil
}

// What a request says of the object beyond its bytes, by JSON and by form, in
// one request and in parts.
func TestPushProperties(t *testing.T) {
	d := startDaemon(t)
	bucket := newBucket(t)
	small, large := makeFile(t, "small", 1000), makeFile(t, "large", oneRequest+1)
	metadata := map[string]string{"exposure": "42", "raft": "R22 of 25"}
	tags := map[string]string{"night": "2026-11-23", "kind": "bias + dark @ 20:00"}
	form := url.Values{
		"label": {"night 1"}, "content_type": {"image/fits"}, "storage_class": {"STANDARD"},
		"metadata.exposure": {"42"}, "metadata.raft": {"R22 of 25"},
		"tags.night": {"2026-11-23"}, "tags.kind": {"bias + dark @ 20:00"},
	}
	byJSON := func(t testing.TB, file, destination string) answer {
		return d.pushJSON(t, map[string]any{
			"file": file, "destination": destination, "label": "night 1", "content_type": "image/fits",
			"storage_class": "STANDARD", "metadata": metadata, "tags": tags,
		})
	}
	byForm := func(t testing.TB, file, destination string) answer {
		f := maps.Clone(form)
		f.Set("file", file)
		f.Set("destination", destination)
		return d.pushForm(t, f.Encode())
	}
	tests := []struct {
		name, file string
		push       func(t testing.TB, file, destination string) answer
	}{
		{"JSON, one request", small, byJSON},
		{"JSON, in parts", large, byJSON},
		{"form, one request", small, byForm},
		{"form, in parts", large, byForm},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key := fmt.Sprintf("key-%d", i)
			r := tt.push(t, tt.file, "s3://"+bucket+"/"+key).done(t)
			if r.Label != "night 1" {
				t.Errorf("the receipt has the label %q", r.Label)
			}
			checkObject(t, bucket, key, tt.file)
			head := headObject(t, bucket, key)
			if got := aws.ToString(head.ContentType); got != "image/fits" {
				t.Errorf("the object has the content type %q", got)
			}
			if !maps.Equal(head.Metadata, metadata) {
				t.Errorf("the object has the metadata %v, want %v", head.Metadata, metadata)
			}
			out, err := theStore.client.GetObjectTagging(context.Background(), &s3.GetObjectTaggingInput{Bucket: &bucket, Key: &key})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, tag := range out.TagSet {
				got[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
			}
			if !maps.Equal(got, tags) {
				t.Errorf("the object has the tags %v, want %v", got, tags)
			}
		})
	}
}

// What can be asked beside pushing.
func TestOtherRoutes(t *testing.T) {
	d := startDaemon(t)
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.yaml"} {
		if a := d.get(t, path); a.status != 200 || len(a.body) == 0 {
			t.Errorf("GET %s: %d with %d bytes", path, a.status, len(a.body))
		}
	}
	served, err := os.ReadFile(repoDir + "/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if a := d.get(t, "/openapi.yaml"); string(a.body) != string(served) {
		t.Error("GET /openapi.yaml is not the repository's openapi.yaml")
	}
	d.get(t, "/nothing").refused(t, 404, "not_found")
	if a := d.get(t, "/push"); a.header.Get("Allow") != "POST" {
		t.Errorf("GET /push has Allow: %q", a.header.Get("Allow"))
	} else {
		a.refused(t, 405, "method_not_allowed")
	}
}
