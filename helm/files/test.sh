# One file, all the way to the store.
set -e
date > /data/s3daemon-test
send /data/s3daemon-test "s3://$BUCKET/s3daemon-example/test"
echo "s3://$BUCKET/s3daemon-example/test is there"
