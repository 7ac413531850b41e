package e2e

import (
	"context"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// The store and the way back out of it are tested without a daemon, so that a
// failure elsewhere is not theirs.
func TestStore(t *testing.T) {
	bucket, key := newBucket(t), "dir/key"
	file, other, shorter := makeFile(t, "some", 100_000), makeFile(t, "other", 100_000), makeFile(t, "some", 99_999)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := theStore.client.PutObject(context.Background(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: f}); err != nil {
		t.Fatal(err)
	}
	checkObject(t, bucket, key, file)
	if objects := listObjects(t, bucket); len(objects) != 1 || *objects[key].Size != 100_000 {
		t.Errorf("the bucket has %v", objects)
	}
	for _, wrong := range []string{other, shorter, file + "-missing"} {
		if err := compareObject(bucket, key, wrong); err == nil {
			t.Errorf("the object compares equal to %s", wrong)
		}
	}
	if err := compareObject(bucket, "missing", file); err == nil {
		t.Error("an object that is not there compares equal to a file")
	}
}
