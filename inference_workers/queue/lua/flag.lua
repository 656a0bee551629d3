-- prefix, worker, field, value: never brings a forgotten worker's hash back
local worker = key('worker', ARGV[2])
if redis.call('EXISTS', worker) == 1 then redis.call('HSET', worker, ARGV[3], ARGV[4]) end
return 1
