/* Fork and join over cores, for calls of 20 us and more. One job at a time; a second caller runs its
   own job alone. Work is handed out piece by piece, so a core that another process took slows only
   the piece that it holds. */
#pragma once

typedef void (*lm_task)(void *argument, long piece);

void lm_parallel(lm_task task, void *argument, long pieces);
