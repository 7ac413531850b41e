package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// What the store refuses comes through with the store's own reason.
func TestStoreRefuses(t *testing.T) {
	d := startDaemon(t, "S3DAEMON_ATTEMPTS=2") // some of it comes as an error of the server's own
	bucket := newBucket(t)
	small, large := makeFile(t, "small", 1000), makeFile(t, "large", oneRequest+1)
	d.push(t, small, "s3://"+bucket+"/a").done(t)
	d.push(t, small, "s3://"+bucket+"/d/e").done(t)
	tests := []struct {
		name, destination string
		storeCode         string // "" for any
	}{
		{"no such bucket", "s3://no-such-bucket-here/key", "NoSuchBucket"},
		// The rest is about this store alone, which keeps keys as paths.
		{"below an object", "s3://" + bucket + "/a/b", ""},
		{"a name over 255 bytes", "s3://" + bucket + "/" + strings.Repeat("x", 256), ""},
		{"bytes and a trailing slash", "s3://" + bucket + "/dir/", ""},
	}
	for _, tt := range tests {
		for kind, file := range map[string]string{"one request": small, "in parts": large} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				p := d.push(t, file, tt.destination).refused(t, http.StatusBadGateway, "store_refused")
				if p.Store == nil || p.Store.Code == "" || p.Store.Status < 400 || tt.storeCode != "" && p.Store.Code != tt.storeCode {
					t.Fatalf("the problem has of the store %+v, want the code %q", p.Store, tt.storeCode)
				}
				if p.ID == "" || !strings.Contains(p.Detail, p.Store.Code) {
					t.Errorf("the problem has the id %q and the detail %q, want the store's %q in it", p.ID, p.Detail, p.Store.Code)
				}
				t.Logf("%s", p.Detail)
			})
		}
	}
	// This store fails at completing what it cannot name, with a 500 that could
	// mean anything: then the daemon must let the parts be, of each attempt.
	if n := abortUploads(t, bucket, strings.Repeat("x", 256)); n < 1 || n > 2 {
		t.Errorf("%d uploads were left whose completion failed unclearly, want 1 or 2", n)
	}
	checkObject(t, bucket, "a", small)
	checkObject(t, bucket, "d/e", small)
	if n := len(listObjects(t, bucket)); n != 2 {
		t.Errorf("the bucket has %d objects, want the 2 from before", n)
	}
	// One bad push holds up no other.
	d.push(t, small, "s3://"+bucket+"/after").done(t)
}

// Credentials that the store does not take.
func TestStoreRefusesCredentials(t *testing.T) {
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	tests := []struct{ name, setting, storeCode string }{
		{"wrong secret", "AWS_SECRET_ACCESS_KEY=another+Secret/of+nobody", "SignatureDoesNotMatch"},
		{"unknown key", "AWS_ACCESS_KEY_ID=nobody", "XAdminUserNotFound"}, // elsewhere InvalidAccessKeyId
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := startDaemon(t, tt.setting)
			p := d.push(t, file, "s3://"+bucket+"/key").refused(t, http.StatusBadGateway, "store_refused")
			if p.Store == nil || p.Store.Code != tt.storeCode {
				t.Errorf("the problem has of the store %+v, want the code %s", p.Store, tt.storeCode)
			}
			if n := len(listObjects(t, bucket)); n != 0 {
				t.Errorf("the bucket has %d objects", n)
			}
		})
	}
}

// A store that is not there is told from one that refuses, and once it is
// back, so is the daemon.
func TestStoreDown(t *testing.T) {
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_ATTEMPTS=2")
	d.push(t, file, "s3://"+bucket+"/before").done(t)

	p.close()
	got := d.push(t, file, "s3://"+bucket+"/key").refused(t, http.StatusGatewayTimeout, "store_unreachable")
	if got.Store != nil || got.ID == "" {
		t.Errorf("the problem is %+v: the store had said nothing", got)
	}
	t.Logf("%s", got.Detail)
	large := makeFile(t, "large", oneRequest+1)
	d.push(t, large, "s3://"+bucket+"/key").refused(t, http.StatusGatewayTimeout, "store_unreachable")
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := d.get(t, path); a.status != http.StatusOK {
			t.Errorf("GET %s while the store is down: %d", path, a.status)
		}
	}

	again, err := newProxyAt(p.listener.Addr().String(), "unix", theStore.socket)
	if err != nil {
		t.Skipf("the store's port was taken meanwhile: %v", err)
	}
	t.Cleanup(again.close)
	r := d.push(t, file, "s3://"+bucket+"/key").done(t)
	checkReceipt(t, r, file)
	checkObject(t, bucket, "key", file)
}

// What is wrong with a request or a file is said before the store is asked.
func TestDaemonRefuses(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	to := "s3://" + bucket + "/key"
	tests := []struct {
		name, file, destination string
		status                  int
		code                    string
	}{
		{"no such file", filepath.Join(t.TempDir(), "nothing"), to, 404, "file_not_found"},
		{"a directory", t.TempDir(), to, 422, "file_not_regular"},
		{"a relative path", "etc/hosts", to, 400, "invalid_file"},
		{"a path of the kernel", "/proc/self/environ", to, 403, "file_not_allowed"},
		{"no key", file, "s3://" + bucket, 400, "invalid_destination"},
		{"no bucket", file, "s3:///key", 400, "invalid_destination"},
		{"neither", file, "bucket-only", 400, "invalid_destination"},
		{"no destination", file, "", 400, "missing_field"},
		{"no file", "", to, 400, "missing_field"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d.push(t, tt.file, tt.destination).refused(t, tt.status, tt.code)
		})
	}
	if n := p.bytesSent(); n != 0 {
		t.Errorf("%d bytes went to the store", n)
	}
}
